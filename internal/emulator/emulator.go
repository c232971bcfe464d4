// SPDX-License-Identifier: Apache-2.0

// Package emulator makes the requests that a Kata agent gets for the pods of a manifest: what controllers and the API server make
// of it (package controller), the kubelet (kubelet), containerd (containerd) and Kata's shim (shim). It knows nothing of
// policies, so that it can find a policy that is wrong, and it is held to recordings of the real components.
package emulator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/kubelet"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/shim"
)

// Images finds images by the name that a manifest gives them.
type Images interface {
	// Image returns the configuration of an image, and its accounts if withAccounts.
	Image(ctx context.Context, name string, withAccounts bool) (images.Config, *images.Accounts, error)
}

// Options say on what a pod runs.
type Options struct {
	Node         *node.Node
	Containerd   containerd.Release
	Shim         shim.Config
	Images       Images
	HostImages   bool     // images are unpacked on the node, which so knows their accounts
	Pause        string   // image of the pause container
	Pulled       []string // other images that the node has, each with its tag: containerd 1 may name one of the same repository by it
	Capabilities []string // what a container with all capabilities gets, nil for all of Linux
	Identity     controller.Identity
}

// Pod is a pod on an emulated node.
type Pod struct {
	Name, Namespace string
	options         Options
	pod             controller.Pod
	kubelet         *kubelet.Kubelet
	runtime         *containerd.Runtime
	sandbox         *containerd.Sandbox
	shim            *shim.Shim
	containers      []*container
}

// container is a container of the pod, created or not.
type container struct {
	*corev1.Container
	init, sidecar bool
	image         containerd.Image
	id            string
	spec          *specs.Spec
}

// Request is one request to the agent.
type Request struct {
	Container string // name of the container it is about, "" for the sandbox
	Message   proto.Message
	Succeeded bool // a wait for an init container, which ends by itself and well
}

// New puts the first pod of a workload of the manifest on a node. Nothing is created yet.
func New(ctx context.Context, m *controller.Manifest, at int, o Options) (*Pod, error) {
	files := hostfs.FS{}
	maps.Copy(files, o.Node.Files)
	p := &Pod{options: o, pod: m.Pod(o.Node, at, o.Identity)}
	if name := p.pod.Spec.NodeName; name != o.Node.Name { // the manifest says where the pod runs
		there := *o.Node
		there.Name, o.Node = name, &there
		p.options = o
	}
	p.Name, p.Namespace = p.pod.Name, p.pod.Namespace
	var err error
	if p.kubelet, err = kubelet.New(o.Node, p.pod, files); err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.Name, err)
	}
	p.runtime = &containerd.Runtime{Release: o.Containerd, Node: o.Node, Files: files, Capabilities: o.Capabilities}
	p.shim = shim.New(o.Shim, files, o.Node.Random)
	for i := range p.pod.Spec.InitContainers {
		c := &p.pod.Spec.InitContainers[i]
		p.containers = append(p.containers, &container{Container: c, init: true, sidecar: kubelet.Sidecar(c)})
	}
	for i := range p.pod.Spec.Containers {
		p.containers = append(p.containers, &container{Container: &p.pod.Spec.Containers[i]})
	}
	for _, c := range p.containers {
		if c.image, err = p.image(ctx, c.Image); err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	pause := pauseImage(o.Pause)
	if !strings.HasPrefix(o.Pause, publishedPause) {
		if pause, err = p.image(ctx, o.Pause); err != nil {
			return nil, fmt.Errorf("pause container: %w", err)
		}
	}
	p.sandbox, err = p.runtime.Sandbox(o.Node.Random.ID(), p.kubelet.Sandbox(), pause)
	return p, err
}

func (p *Pod) image(ctx context.Context, name string) (containerd.Image, error) {
	config, accounts, err := p.options.Images.Image(ctx, name, p.options.HostImages)
	return containerd.Image{Name: name, Config: config, Accounts: accounts, Also: p.pulled(name)}, err
}

// pulled are the node's tags of the repository of an image that is named by digest.
func (p *Pod) pulled(name string) (tags []string) {
	ref, err := images.ParseReference(name)
	if err != nil || !ref.Pinned() {
		return nil
	}
	for _, tag := range p.options.Pulled {
		if other, err := images.ParseReference(tag); err == nil && other.Name() == ref.Name() {
			tags = append(tags, tag)
		}
	}
	return tags
}

// publishedPause is how the names of Kubernetes' own pause images begin.
const publishedPause = "registry.k8s.io/pause:3."

// pauseImage is what Kubernetes publishes as the image of pause containers.
func pauseImage(name string) containerd.Image {
	return containerd.Image{Name: name, Config: images.Config{
		User: "65535:65535", Entrypoint: []string{"/pause"}, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}}
}

// Containers are the names of the pod's containers, in the order of the manifest, init containers first.
func (p *Pod) Containers() []string {
	var out []string
	for _, c := range p.containers {
		out = append(out, c.Name)
	}
	return out
}

func (p *Pod) find(name string) *container {
	i := slices.IndexFunc(p.containers, func(c *container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return p.containers[i]
}

// Specifications are those that containerd wrote, by container, "" being the sandbox. Containers that were not started have none.
func (p *Pod) Specifications() map[string]*specs.Spec {
	out := map[string]*specs.Spec{"": p.sandbox.Spec}
	for _, c := range p.containers {
		if c.spec != nil {
			out[c.Name] = c.spec
		}
	}
	return out
}

// Files are those of the node with what kubelet and containerd wrote.
func (p *Pod) Files() hostfs.FS { return p.runtime.Files }
