// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/images"
	"portcullis/internal/emulator"
	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/kubelet"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/peerpods"
	"portcullis/internal/emulator/shim"
)

// simulateFlags say what is simulated, and on what.
type simulateFlags struct {
	platform, containerd, shim string
	pod, pause                 string
	layouts, archives          []string
	changes, removals, execs   []string
	seed                       uint64
	startOnly, all, forwarded  bool
	until                      string
}

func newSimulate() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate MANIFEST",
		Short: "Make the requests that a runtime would send for a manifest",
		Long: `Print the requests of a pod's life as lines of JSON, a recording for replay and explain: what the kubelet, containerd and Kata's shim
make of MANIFEST ("-" is standard input). No policy is looked at. The same command gives the same bytes; --seed gives other ids and names.

The emulation is held to recordings of these components, with the containerd and shim that --containerd and --shim name. What a
cluster chooses is invented: names drawn at random, addresses, tokens, and ConfigMaps and Secrets that are not in the manifest.

Requests that a pod runs without, reading its output and asking for its counters, are left out unless --all is given: a policy
may deny them.

--change and --remove change one field of the first request that has it:

  [CONTAINER/][KIND:]PATH=VALUE

PATH is as explain prints it, with a number or a name in brackets: OCI.Process.Args[0], OCI.Process.Env[HOME],
OCI.Mounts[/etc/shop].source, OCI.Mounts[+] for one more. VALUE is JSON, or else text. CONTAINER may be $sandbox.
Init containers succeed; INIT/response.status=1 has one of that name fail.`,
		Example: `  genpolicy -r < pod.yaml > pod.rego && policyctl simulate pod.yaml | policyctl replay --policy pod.rego -
  policyctl simulate --change 'web/OCI.Process.Args[0]=/bin/sh' pod.yaml | policyctl explain --policy pod.rego -
  policyctl simulate --exec 'web:cat /etc/passwd' --platform peer-pods --shim rs pod.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.platform, "platform", "guest-pull", "`PLATFORM` on which the pod runs: "+strings.Join(emulator.Platforms(), ", "))
	flags.StringVar(&f.containerd, "containerd", string(containerd.V2_4), "`RELEASE` of containerd: 1.6, 1.7, 2.2 or 2.4")
	flags.StringVar(&f.shim, "shim", string(shim.Go), "Kata's shim: go or rs")
	flags.StringVar(&f.pod, "pod", "", "`KIND/NAME` of the workload, where the manifest has several")
	flags.StringVar(&f.pause, "pause-image", "registry.k8s.io/pause:3.10", "`IMAGE` of the pause container")
	flags.StringArrayVar(&f.layouts, "oci-layout", nil, "take images from the OCI layout in `DIR` first (repeatable)")
	flags.StringArrayVar(&f.archives, "docker-archive", nil, "take images from the archive `FILE` of docker save first (repeatable)")
	flags.StringArrayVar(&f.changes, "change", nil, "change a field: `[CONTAINER/][KIND:]PATH=VALUE` (repeatable)")
	flags.StringArrayVar(&f.removals, "remove", nil, "leave out an item or a key: `[CONTAINER/][KIND:]PATH` (repeatable)")
	flags.StringArrayVar(&f.execs, "exec", nil, "also run `CONTAINER:COMMAND`, as kubectl exec does (repeatable)")
	flags.Uint64Var(&f.seed, "seed", 1, "draw ids and names from this `NUMBER`")
	flags.BoolVar(&f.startOnly, "start", false, "end when all containers run")
	flags.StringVar(&f.until, "until", "", "end with the first request `[CONTAINER/]KIND`, such as web/CreateContainer")
	flags.BoolVar(&f.all, "all", false, "also print requests that a pod runs without")
	flags.BoolVar(&f.forwarded, "forwarded", false, "print requests as they leave the forwarder of a peer pod")
	return cmd
}

func (f *simulateFlags) run(ctx context.Context, file string, stdin io.Reader, out io.Writer) error {
	pod, err := f.open(ctx, file, stdin)
	if err != nil {
		return err
	}
	requests, err := f.life(pod)
	if err != nil {
		return simulateError(err)
	}
	inputs, err := f.inputs(requests)
	if err != nil {
		return err
	}
	if err := f.change(inputs); err != nil {
		return usageError(err)
	}
	if inputs, err = f.cut(inputs); err != nil {
		return usageError(err)
	}
	w := bufio.NewWriter(out)
	for _, r := range inputs {
		if emulator.Optional(r.Kind) && !f.all {
			continue
		}
		line := struct {
			Kind     string         `json:"kind,omitempty"`
			Observed string         `json:"observed,omitempty"`
			Request  map[string]any `json:"request"`
		}{Kind: r.Kind, Request: r.Request}
		if r.Kind == waitAnswer {
			line.Kind, line.Observed = "", r.Kind
		}
		if err := writeLine(w, line); err != nil {
			return err
		}
	}
	return w.Flush()
}

// open puts the pod of the manifest on a node.
func (f *simulateFlags) open(ctx context.Context, file string, stdin io.Reader) (*emulator.Pod, error) {
	release, err := containerd.ParseRelease(f.containerd)
	if err != nil {
		return nil, usageError(err)
	}
	kind := shim.Kind(f.shim)
	if kind != shim.Go && kind != shim.RuntimeRS {
		return nil, usageError(fmt.Errorf("shim %q is not emulated: go or rs", f.shim))
	}
	config, err := emulator.Platform(f.platform, kind)
	if err != nil {
		return nil, usageError(err)
	}
	in, err := openInput([]string{file}, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := controller.Decode(text)
	if err != nil {
		return nil, usageError(err)
	}
	at, err := f.workload(m)
	if err != nil {
		return nil, usageError(err)
	}
	stores, err := openStores(f.layouts, f.archives)
	if err != nil {
		return nil, err
	}
	defer stores.Close()
	n := node.Default(f.seed)
	n.Unknown = invented
	pod, err := emulator.New(ctx, m, at, emulator.Options{
		Node: n, Containerd: release, Shim: config, Images: stores.Stores, HostImages: !config.GuestPull, Pause: f.pause,
	})
	return pod, simulateError(err)
}

// maxManifest bounds a manifest, bytes.
const maxManifest = 32 << 20

// invented is the data of an object that only the cluster has.
func invented(kind, name string) map[string][]byte {
	value := []byte(kind + " " + name)
	return map[string][]byte{node.EveryKey: value, "key": value}
}

// simulateError is what a pod that no node would start is reported as: a check that said no.
func simulateError(err error) error {
	if errors.Is(err, kubelet.ErrRefused) || errors.Is(err, containerd.ErrRefused) || errors.Is(err, images.ErrUnknownUser) {
		return &exitError{exitNo, err}
	}
	return err
}

func (f *simulateFlags) workload(m *controller.Manifest) (int, error) {
	names := m.Names()
	if f.pod == "" {
		if len(names) > 1 {
			return 0, fmt.Errorf("the manifest has %d workloads; choose one by --pod: %s", len(names), strings.Join(names, ", "))
		}
		return 0, nil
	}
	if at := slices.Index(names, strings.ToLower(f.pod)); at >= 0 {
		return at, nil
	}
	return 0, fmt.Errorf("the manifest has no %s; it has %s", f.pod, strings.Join(names, ", "))
}

// life are the requests, with those of --exec once all containers run.
func (f *simulateFlags) life(pod *emulator.Pod) ([]emulator.Request, error) {
	out, err := pod.Start()
	if err != nil {
		return nil, err
	}
	for _, text := range f.execs {
		name, command, ok := strings.Cut(text, ":")
		if !ok || command == "" {
			return nil, usageError(fmt.Errorf("--exec %q is not CONTAINER:COMMAND", text))
		}
		more, err := pod.Exec(name, strings.Fields(command), nil)
		if err != nil {
			return nil, usageError(fmt.Errorf("%w; there are %s", err, strings.Join(pod.Containers(), ", ")))
		}
		out = append(out, more...)
	}
	if f.startOnly {
		return out, nil
	}
	return append(out, pod.Stop()...), nil
}

// inputs are the requests as a policy sees them, behind the forwarder if asked for.
func (f *simulateFlags) inputs(requests []emulator.Request) ([]emulator.Input, error) {
	var out []emulator.Input
	for _, r := range requests {
		if f.forwarded {
			passed, err := peerpods.Forward(r.Message)
			if err != nil {
				return nil, err
			}
			r.Message = passed
		}
		kind, input, err := r.Input()
		if err != nil {
			return nil, err
		}
		delete(input, "data_size") // the digest says it
		out = append(out, emulator.Input{Container: r.Container, Kind: kind, Request: input})
		if r.Succeeded {
			out = append(out, emulator.Input{Container: r.Container, Kind: waitAnswer, Request: map[string]any{
				"request": maps.Clone(input), "response": map[string]any{"status": 0},
			}})
		}
	}
	return out, nil
}

// waitAnswer is as what the gate shows a policy the agent's answer to a wait: without it no recording says that an init container
// succeeded.
const waitAnswer = "WaitProcessResponse"

// cut ends the life with the request that --until names.
func (f *simulateFlags) cut(inputs []emulator.Input) ([]emulator.Input, error) {
	if f.until == "" {
		return inputs, nil
	}
	container, kind, ok := strings.Cut(f.until, "/")
	if !ok {
		container, kind = "", f.until
	}
	kind = strings.TrimSuffix(kind, "Request") + "Request"
	for i, r := range inputs {
		if r.Kind == kind && (container == "" || container == r.Container || container == "$sandbox" && r.Container == "") {
			return inputs[:i+1], nil
		}
	}
	return nil, fmt.Errorf("--until %s: the pod sends no such request", f.until)
}

func (f *simulateFlags) change(inputs []emulator.Input) error {
	for _, text := range f.changes {
		c, err := emulator.ParseChange(text)
		if err == nil {
			err = c.Apply(inputs)
		}
		if err != nil {
			return fmt.Errorf("--change %s: %w", text, err)
		}
	}
	for _, text := range f.removals {
		c, err := emulator.ParseRemoval(text)
		if err == nil {
			err = c.Apply(inputs)
		}
		if err != nil {
			return fmt.Errorf("--remove %s: %w", text, err)
		}
	}
	return nil
}
