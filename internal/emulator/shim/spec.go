// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/agentproto/agentpb"
	"portcullis/hostdata/initdata"
)

// container is a container on its way to the agent.
type container struct {
	shim   *Shim
	id     string
	spec   *specs.Spec
	create *agentpb.CreateContainerRequest
	copies []message
}

const kataKey = "io.katacontainers.pkg.oci."

// convert is the specification without what means nothing in a guest, and with the shim's annotations.
func (c *container) convert(bundle string) *agentpb.Spec {
	spec := c.spec
	annotations := maps.Clone(spec.Annotations)
	for _, key := range []string{initdata.Annotation, initdata.OlderAnnotation, initdata.PolicyAnnotation} {
		delete(annotations, key) // the shim acts on them, and the agent gets them in other ways
	}
	annotations[kataKey+"bundle_path"] = bundle
	annotations[kataKey+"container_type"] = "pod_" + spec.Annotations[criKey+"container-type"]
	if c.isSandbox() && (c.shim.Config.Kind == Go || networkNamespace(spec) != "") {
		annotations["nerdctl/network-namespace"] = networkNamespace(spec)
	}
	process := convertProcess(spec.Process)
	if caps := process.Capabilities; caps != nil && c.shim.Config.Kind == RuntimeRS {
		caps.Bounding, caps.Effective, caps.Permitted = withoutPrefix(caps.Bounding), withoutPrefix(caps.Effective), withoutPrefix(caps.Permitted)
	}
	return &agentpb.Spec{
		Version: spec.Version, Process: process, Hostname: spec.Hostname,
		Root: &agentpb.Root{Path: c.root(), Readonly: spec.Root.Readonly}, Annotations: annotations, Linux: c.linux(),
	}
}

const criKey = "io.kubernetes.cri."

func (c *container) isSandbox() bool { return c.spec.Annotations[criKey+"container-type"] == "sandbox" }

// root is where the guest has the container's file system.
func (c *container) root() string {
	switch {
	case c.shim.Config.GuestPull:
		return kataDir + c.id + "/rootfs"
	case c.shim.Config.Kind == RuntimeRS:
		return passthrough + c.id + "/rootfs"
	}
	return sharedDir + c.id + "/rootfs"
}

func (c *container) sharesPIDs() bool {
	return slices.ContainsFunc(c.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path != ""
	})
}

func convertProcess(p *specs.Process) *agentpb.Process {
	out := &agentpb.Process{
		Terminal: p.Terminal, Args: p.Args, Env: p.Env, Cwd: p.Cwd, NoNewPrivileges: p.NoNewPrivileges,
		User: &agentpb.User{UID: p.User.UID, GID: p.User.GID, AdditionalGids: p.User.AdditionalGids},
	}
	if p.ConsoleSize != nil {
		out.ConsoleSize = &agentpb.Box{Height: uint32(p.ConsoleSize.Height), Width: uint32(p.ConsoleSize.Width)}
	}
	if p.OOMScoreAdj != nil {
		out.OOMScoreAdj = int64(*p.OOMScoreAdj)
	}
	if caps := p.Capabilities; caps != nil {
		out.Capabilities = &agentpb.LinuxCapabilities{
			Bounding: caps.Bounding, Effective: caps.Effective, Inheritable: caps.Inheritable, Permitted: caps.Permitted, Ambient: caps.Ambient,
		}
	}
	for _, l := range p.Rlimits {
		out.Rlimits = append(out.Rlimits, &agentpb.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
	}
	return out
}

// linux keeps of the host's settings the namespaces that a guest makes, without
// paths, and of the resources those of CPU and memory.
func (c *container) linux() *agentpb.Linux {
	in := c.spec.Linux
	out := &agentpb.Linux{
		Sysctl: in.Sysctl, CgroupsPath: in.CgroupsPath, RootfsPropagation: in.RootfsPropagation,
		MaskedPaths: in.MaskedPaths, ReadonlyPaths: in.ReadonlyPaths, Resources: convertResources(in.Resources),
	}
	for _, n := range in.Namespaces {
		kind := string(n.Type)
		switch n.Type {
		case specs.IPCNamespace, specs.UTSNamespace:
		case specs.MountNamespace:
			if c.shim.Config.Kind == RuntimeRS {
				kind = "mnt"
			}
		default:
			continue
		}
		out.Namespaces = append(out.Namespaces, &agentpb.LinuxNamespace{Type: kind})
	}
	for _, d := range in.Devices {
		if strings.HasPrefix(d.Path, vfioDir) {
			continue // the guest makes its own of the device that it gets
		}
		device := &agentpb.LinuxDevice{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor}
		if d.FileMode != nil {
			device.FileMode = uint32(*d.FileMode)
		}
		if d.UID != nil && d.GID != nil {
			device.UID, device.GID = *d.UID, *d.GID
		}
		out.Devices = append(out.Devices, device)
	}
	return out
}

func convertResources(in *specs.LinuxResources) *agentpb.LinuxResources {
	out := &agentpb.LinuxResources{}
	if in == nil {
		return out
	}
	if m := in.Memory; m != nil {
		out.Memory = &agentpb.LinuxMemory{
			Limit: value(m.Limit), Reservation: value(m.Reservation), Swap: value(m.Swap), Swappiness: value(m.Swappiness),
			DisableOOMKiller: value(m.DisableOOMKiller),
		}
	}
	if p := in.CPU; p != nil {
		out.CPU = &agentpb.LinuxCPU{
			Shares: value(p.Shares), Quota: value(p.Quota), Period: value(p.Period),
			RealtimeRuntime: value(p.RealtimeRuntime), RealtimePeriod: value(p.RealtimePeriod),
		}
	}
	for _, h := range in.HugepageLimits {
		out.HugepageLimits = append(out.HugepageLimits, &agentpb.LinuxHugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	return out
}

func value[T any](p *T) (zero T) {
	if p != nil {
		return *p
	}
	return zero
}

// withoutPrefix is how runtime-rs writes capabilities. It does so in any order.
func withoutPrefix(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, strings.TrimPrefix(name, "CAP_"))
	}
	return out
}
