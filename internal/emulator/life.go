// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/kubelet"
	"portcullis/internal/emulator/shim"
)

// Start returns the requests until all containers run: init containers one after the other, each to its end, then the others,
// with the hooks and one round of the exec probes of each.
func (p *Pod) Start() ([]Request, error) {
	out := p.startSandbox()
	for _, c := range p.containers {
		started, err := p.start(c)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
		out = append(out, started...)
		if c.init && !c.sidecar {
			out = append(out, succeeded(p.end(c))...)
		}
	}
	return out, nil
}

// succeeded marks the first wait: the agent answers it when the process has ended.
func succeeded(end []Request) []Request {
	for i, r := range end {
		if _, ok := r.Message.(*agentpb.WaitProcessRequest); ok {
			end[i].Succeeded = true
			break
		}
	}
	return end
}

// Life returns all requests of a pod that starts, is probed, asked for its counters, and deleted.
func (p *Pod) Life() ([]Request, error) {
	out, err := p.Start()
	if err != nil {
		return nil, err
	}
	return append(out, p.Stop()...), nil
}

// Stop returns the requests of a pod that started and is asked for its counters, then deleted.
func (p *Pod) Stop() []Request {
	var out []Request
	running := slices.DeleteFunc(slices.Clone(p.containers), func(c *container) bool { return c.init && !c.sidecar })
	for _, c := range running {
		out = append(out, p.of(c, p.shim.Stats(c.id))...)
	}
	for _, c := range running {
		out = append(out, p.stop(c)...)
	}
	return append(out, p.stopSandbox()...)
}

func (p *Pod) of(c *container, messages ...proto.Message) []Request {
	name := ""
	if c != nil {
		name = c.Name
	}
	var out []Request
	for _, m := range messages {
		out = append(out, Request{Container: name, Message: m})
	}
	return out
}

func (p *Pod) startSandbox() []Request {
	n, id := p.options.Node, p.sandbox.ID
	network := shim.Interface{IP: n.PodIP, LinkLocal: n.PodLinkLocal, MAC: n.PodMAC, Gateway: n.Gateway}
	out := p.shim.CreateSandbox(id, p.sandbox.Spec, p.sandbox.Resolv(p.runtime.Files), network)
	out = append(out, p.shim.CreateContainer(id, p.runtime.Bundle(id), p.sandbox.Spec)...)
	out = append(out, p.shim.StartContainer(id))
	if p.options.Shim.Kind == shim.Go {
		out = append(out, p.shim.Wait(id, ""))
	}
	return p.of(nil, append(out, p.shim.OOMEvent())...)
}

// start creates and starts a container, again if it ran before.
func (p *Pod) start(c *container) ([]Request, error) {
	config, err := p.kubelet.Container(c.Container, c.image.Config)
	if err != nil {
		return nil, err
	}
	c.id = p.options.Node.Random.ID()
	if c.spec, err = p.runtime.Container(p.sandbox, c.id, config, c.image); err != nil {
		return nil, err
	}
	out := p.of(c, append(p.shim.CreateContainer(c.id, p.runtime.Bundle(c.id), c.spec), p.shim.StartContainer(c.id))...)
	out = append(out, p.of(c, p.shim.Read(c.id, ""))...)
	if c.Lifecycle != nil {
		out = append(out, p.hook(c, c.Lifecycle.PostStart)...)
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe != nil && probe.Exec != nil {
			out = append(out, p.exec(c, kubelet.Command(probe.Exec.Command, c.Container))...)
		}
	}
	return out, nil
}

func (p *Pod) hook(c *container, hook *corev1.LifecycleHandler) []Request {
	if hook == nil || hook.Exec == nil {
		return nil
	}
	return p.exec(c, hook.Exec.Command)
}

// exec runs a command in a container as probes and hooks do.
func (p *Pod) exec(c *container, argv []string) []Request {
	process := *c.spec.Process
	process.Args, process.Terminal = argv, false
	return p.process(c, &process)
}

func (p *Pod) process(c *container, process *specs.Process) []Request {
	id := p.shim.ExecID()
	kill, wait := p.shim.Signal(c.id, id, sigkill), p.shim.Wait(c.id, id)
	out := []proto.Message{p.shim.Exec(c.id, id, process), p.shim.Read(c.id, id), p.shim.Read(c.id, id)}
	if p.options.Shim.Kind == shim.Go { // the Go shim does so only where the process was slow
		return p.of(c, append(out, kill, wait)...)
	}
	return p.of(c, append(out, wait, kill)...)
}

// Exec returns the requests of `kubectl exec` in a container that runs, with text for its standard input unless it is nil.
func (p *Pod) Exec(name string, argv []string, stdin []byte) ([]Request, error) {
	c := p.find(name)
	if c == nil || c.spec == nil {
		return nil, fmt.Errorf("exec: no container %s runs", name)
	}
	out := p.exec(c, argv)
	if stdin != nil {
		create := out[0].Message.(*agentpb.ExecProcessRequest)
		out = slices.Insert(out, 1, p.of(c, p.shim.Write(c.id, create.ExecId, stdin)...)...)
	}
	return out, nil
}

// Signals that end a container.
const (
	sigterm = 15
	sigkill = 9
)

// end is what follows when a container's process ends.
func (p *Pod) end(c *container) []Request {
	out := []proto.Message{p.shim.Read(c.id, ""), p.shim.Read(c.id, ""), p.shim.Wait(c.id, ""), p.shim.Signal(c.id, "", sigkill)}
	if p.options.Shim.Kind == shim.Go {
		out = append(out, p.shim.Wait(c.id, ""))
	}
	out = append(out, p.shim.Remove(c.id)...)
	return p.of(c, append(out, p.shim.Stats(c.id))...) // the kubelet asks a little longer
}

// stop is the end of a container whose pod is deleted.
func (p *Pod) stop(c *container) []Request {
	var out []Request
	if c.Lifecycle != nil {
		out = p.hook(c, c.Lifecycle.PreStop)
	}
	out = append(out, p.of(c, p.shim.Signal(c.id, "", c.image.StopSignal()))...)
	return append(out, p.end(c)...)
}

func (p *Pod) stopSandbox() []Request {
	id := p.sandbox.ID
	out := []proto.Message{p.shim.Signal(id, "", sigkill)}
	if p.options.Shim.Kind == shim.Go {
		out = append(out, p.shim.Signal(id, "", sigkill))
	}
	out = append(out, p.shim.Wait(id, ""))
	out = append(out, p.shim.Remove(id)...)
	return p.of(nil, append(out, p.shim.DestroySandbox())...)
}
