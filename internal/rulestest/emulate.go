// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// Pod is the identity that emulated requests carry.
type Pod struct{ Name, Namespace, UID, SandboxID string }

// DefaultPod returns an identity that fits the policy's patterns.
func DefaultPod(p *policydata.Policy) Pod {
	namespace := p.Sandbox.Namespace
	if namespace == "" {
		namespace = "default"
	}
	return Pod{
		Name: Example(p.Sandbox.Name), Namespace: namespace,
		UID: "9c64c5bf-298f-46c4-ad63-e2270a2ff44c", SandboxID: ID(policydata.SandboxContainer),
	}
}

// ID returns a container id for a container's name: 64 hex digits.
func ID(name string) string {
	digits := fmt.Sprintf("%x", name)
	return digits[:min(len(digits), 60)] + strings.Repeat("0", 64-min(len(digits), 60))
}

// Emulator makes the requests a runtime sends for a policy, as far as the policy alone says: patterns are answered with Example.
type Emulator struct {
	Policy *policydata.Policy
	Pod    Pod
}

// All returns a pod's whole start: the sandbox, then every container with its files
// copied, created and started in an order that satisfies the policy's, with its probes run once.
// Where the policy enforces the order, what others wait for ends at once, as the gate says it.
func (e Emulator) All() []Request {
	requests := []Request{e.CreateSandbox()}
	for _, name := range e.Order() {
		id := ID(name)
		requests = append(requests, e.CopyFiles(name)...)
		requests = append(requests, e.CreateContainer(name),
			Request{"StartContainerRequest", map[string]any{"container_id": id}})
		if e.Policy.Order == policydata.OrderEnforced && e.awaited(name) {
			requests = append(requests, Request{"WaitProcessResponse", map[string]any{
				"request": map[string]any{"container_id": id, "exec_id": id}, "response": map[string]any{"status": 0},
			}})
		}
		for _, argv := range e.Policy.Containers[name].Exec {
			requests = append(requests, e.ExecProcess(name, argv))
		}
	}
	return requests
}

// awaited is true for a container that another waits for until it has succeeded.
func (e Emulator) awaited(name string) bool {
	for _, c := range e.Policy.Containers {
		if slices.Contains(c.After, policydata.After{Container: name, State: policydata.Succeeded}) {
			return true
		}
	}
	return false
}

// Order returns the containers' names so that each comes after those it waits for.
func (e Emulator) Order() []string {
	var out []string
	var visit func(string)
	visit = func(name string) {
		if slices.Contains(out, name) {
			return
		}
		for _, after := range e.Policy.Containers[name].After {
			visit(after.Container)
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Policy.Containers)) {
		visit(name)
	}
	return out
}

// CreateSandbox returns the request that begins the pod.
func (e Emulator) CreateSandbox() Request {
	hostname := ""
	if e.Policy.Sandbox.Hostname == policydata.PodHostname {
		hostname = e.Pod.Name
	}
	return Request{"CreateSandboxRequest", map[string]any{
		"hostname": hostname, "dns": []any{"nameserver 10.96.0.10", ""}, "storages": wire(e.Policy.Sandbox.Storages),
		"sandbox_pidns": e.Policy.Sandbox.PIDNS, "sandbox_id": e.Pod.SandboxID, "guest_hook_path": "", "kernel_modules": []any{},
	}}
}

// CreateContainer returns the request that creates a container of the policy.
func (e Emulator) CreateContainer(name string) Request {
	c, id := e.Policy.Containers[name], ID(name)
	root := strings.ReplaceAll(e.Policy.Common.RootPath, "$(container-id)", id)
	annotations := e.annotations(name, c)
	storages, points := e.storages(c, root, annotations)
	paths := e.Policy.Common.Paths[c.Paths]
	return Request{"CreateContainerRequest", map[string]any{
		"container_id": id, "exec_id": id, "string_user": nil, "devices": e.devices(c), "storages": storages,
		"sandbox_pidns": c.PIDNS, "shared_mounts": []any{}, "stdin_port": 0, "stdout_port": 0, "stderr_port": 0,
		"OCI": map[string]any{
			"Version": e.Policy.Common.OCIVersions[0], "Process": e.process(c),
			"Root": map[string]any{"Path": root, "Readonly": c.ReadonlyRoot}, "Hostname": "",
			"Mounts": e.mounts(c, id, points), "Hooks": nil, "Annotations": annotations, "Solaris": nil, "Windows": nil,
			"Linux": map[string]any{
				"UIDMappings": []any{}, "GIDMappings": []any{}, "Sysctl": wire(nonNil(c.Sysctl.Fixed)),
				"Resources": resources(), "CgroupsPath": "/kubepods/pod" + e.Pod.UID + "/" + id,
				"Namespaces": namespaces(c.Namespaces), "Devices": linuxDevices(c.Devices), "Seccomp": nil,
				"RootfsPropagation": "", "MaskedPaths": wire(list(paths.Masked)), "ReadonlyPaths": wire(list(paths.Readonly)),
				"MountLabel": "", "IntelRdt": nil,
			},
		},
	}}
}

// ExecProcess returns the request that runs a command in a container.
func (e Emulator) ExecProcess(name string, argv []string) Request {
	c := e.Policy.Containers[name]
	process := e.process(c)
	maps.Copy(process, map[string]any{"Args": wire(argv), "Capabilities": nil, "Terminal": false, "OOMScoreAdj": 0})
	return Request{"ExecProcessRequest", map[string]any{
		"container_id": ID(name), "exec_id": "05e07bbb-d06c-402d-b9b7-e6386935b200", "string_user": nil,
		"process": process, "stdin_port": 0, "stdout_port": 0, "stderr_port": 0,
	}}
}

func (e Emulator) process(c *policydata.Container) map[string]any {
	args := slices.Clone(c.Args)
	for key, m := range c.ArgMatches {
		var i int
		fmt.Sscan(key, &i)
		args[i] = e.fill(m.Template) + Example(m.Pattern)
	}
	return map[string]any{
		"Terminal": c.Terminal, "ConsoleSize": nil, "User": wire(policydata.User{
			UID: c.OCI.Process.User.UID, GID: c.OCI.Process.User.GID, AdditionalGids: append([]uint32{}, c.OCI.Process.User.AdditionalGids...)}),
		"Args": wire(list(args)), "Env": wire(e.env(c)), "Cwd": c.Cwd,
		"Capabilities": capabilities(e.Policy.Common.Capabilities[c.Capabilities]), "Rlimits": []any{},
		"NoNewPrivileges": c.NoNewPrivs, "ApparmorProfile": e.Policy.Common.AppArmor[0], "OOMScoreAdj": -998, "SelinuxLabel": "",
	}
}

func (e Emulator) env(c *policydata.Container) []string {
	env := slices.Clone(c.Env.Fixed)
	for _, name := range slices.Sorted(maps.Keys(c.Env.Patterns)) {
		env = append(env, name+"="+Example(c.Env.Patterns[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env.Templates)) {
		env = append(env, name+"="+e.fill(c.Env.Templates[name]))
	}
	return env
}

func (e Emulator) fill(template string) string {
	return strings.NewReplacer("$(sandbox-name)", e.Pod.Name, "$(sandbox-namespace)", e.Pod.Namespace, "$(sandbox-uid)", e.Pod.UID).Replace(template)
}

func (e Emulator) annotations(name string, c *policydata.Container) map[string]any {
	out := map[string]any{
		"io.katacontainers.pkg.oci.bundle_path":    strings.ReplaceAll(e.Policy.Common.BundlePath, "$(container-id)", ID(name)),
		"io.katacontainers.pkg.oci.container_type": "pod_" + string(c.Type),
		"io.kubernetes.cri.container-type":         string(c.Type), "io.kubernetes.cri.sandbox-id": e.Pod.SandboxID,
		"io.kubernetes.cri.sandbox-name": e.Pod.Name, "io.kubernetes.cri.sandbox-namespace": e.Pod.Namespace,
		"io.kubernetes.cri.sandbox-uid": e.Pod.UID, "io.kubernetes.cri.sandbox-cpu-shares": "102",
	}
	for key, value := range c.Annotations.Fixed {
		out[key] = value
	}
	for key, pattern := range c.Annotations.Patterns {
		out[key] = Example(pattern)
	}
	if c.OCI.Annotations.ImageName != "" {
		out["io.kubernetes.cri.image-name"] = c.OCI.Annotations.ImageName
	}
	if c.Type == policydata.TypeSandbox {
		out["io.kubernetes.cri.sandbox-log-directory"] = fmt.Sprintf("/var/log/pods/%s_%s_%s", e.Pod.Namespace, e.Pod.Name, e.Pod.UID)
	} else {
		out["io.kubernetes.cri.container-name"] = name
	}
	for n := range c.VFIO.Count {
		out[fmt.Sprintf("cdi.k8s.io/vfio%d", n)] = Example(c.VFIO.Annotation)
	}
	return out
}

// storages returns the storages and the mount points of the block storages, in order.
func (e Emulator) storages(c *policydata.Container, root string, annotations map[string]any) (out []any, points []string) {
	out = []any{}
	if c.Image.From == policydata.GuestPull {
		metadata, err := json.Marshal(map[string]any{"metadata": annotations})
		if err != nil {
			panic(err) // strings encode
		}
		out = append(out, wire(policydata.Storage{
			Driver: "image_guest_pull", DriverOptions: []string{"image_guest_pull=" + string(metadata)},
			Source: c.Image.Source, FSType: "overlay", Options: []string{}, MountPoint: root,
		}))
	}
	for n, s := range c.Storages {
		source := fmt.Sprintf("%02x/%02x", n, n)
		if s.Driver == "$(block)" {
			s.Driver, s.Source = "blk", source
		}
		if s.MountPoint == "$(device)" {
			s.MountPoint = e.Policy.Common.StorageDir + "/" + base64.URLEncoding.EncodeToString([]byte(source))
			points = append(points, s.MountPoint)
		}
		if s.MountPoint == "$(root)" {
			s.MountPoint = root
		}
		s.MountPoint = strings.Replace(s.MountPoint, "$(local)", e.localDir(), 1)
		s.Options, s.DriverOptions = list(s.Options), list(s.DriverOptions)
		out = append(out, wire(s))
	}
	return out, points
}

func (e Emulator) mounts(c *policydata.Container, id string, points []string) []any {
	out := []any{}
	for _, m := range e.Policy.Common.Mounts[c.BaseMounts] {
		out = append(out, wire(m))
	}
	for n, destination := range slices.Sorted(maps.Keys(c.Mounts)) {
		m := c.Mounts[destination]
		source := m.Source
		switch m.From {
		case policydata.MountShared:
			source = e.sharedSource(id, n, m)
		case policydata.MountLocal:
			source = e.localDir() + "/" + m.Source
		case policydata.MountStorage:
			if len(points) > 0 { // of a policy without a storage for it there is no such request
				source, points = points[0], points[1:]
			}
		}
		out = append(out, wire(policydata.ExactMount{Destination: destination, Options: list(m.Options), Source: source, Type: m.Type}))
	}
	return out
}

// localDir is where the agent makes directories of the guest for the pod.
func (e Emulator) localDir() string {
	return e.Policy.Common.SharedDirs[0] + "/" + e.Pod.SandboxID + "/rootfs/local"
}

func (e Emulator) devices(c *policydata.Container) []any {
	out := []any{}
	for _, path := range c.Devices {
		out = append(out, map[string]any{"id": "", "type_": "blk", "vm_path": "/dev/vdb", "container_path": path, "options": []any{}})
	}
	for n := range c.VFIO.Count {
		out = append(out, map[string]any{"id": fmt.Sprintf("vfio%d", n), "type_": c.VFIO.Type, "vm_path": "",
			"container_path": fmt.Sprintf("%s%d", c.VFIO.Path, n), "options": []any{"0000:41:00.0=01/02"}})
	}
	return out
}

func linuxDevices(paths []string) []any {
	out := []any{}
	for _, path := range paths {
		out = append(out, map[string]any{"Path": path, "Type": "b", "Major": 8, "Minor": 1, "FileMode": 432, "UID": 0, "GID": 0})
	}
	return out
}

func namespaces(types []string) []any {
	out := []any{}
	for _, t := range types {
		out = append(out, map[string]any{"Type": t, "Path": ""})
	}
	return out
}

func resources() map[string]any {
	return map[string]any{"Devices": []any{}, "Memory": nil, "Pids": nil, "BlockIO": nil, "HugepageLimits": []any{}, "Network": nil,
		"CPU": map[string]any{"Shares": 102, "Quota": 0, "Period": 0, "RealtimeRuntime": 0, "RealtimePeriod": 0, "Cpus": "", "Mems": ""}}
}

func capabilities(c policydata.Capabilities) any {
	return wire(policydata.Capabilities{Ambient: list(c.Ambient), Bounding: list(c.Bounding), Effective: list(c.Effective),
		Inheritable: list(c.Inheritable), Permitted: list(c.Permitted)})
}

func list(s []string) []string { return append([]string{}, s...) }

func nonNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// wire turns a typed value into what encoding/json makes of it.
func wire(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // values of this package's types encode
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	return out
}
