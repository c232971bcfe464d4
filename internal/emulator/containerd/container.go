// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/images"
	"portcullis/internal/emulator/cri"
	"portcullis/internal/emulator/hostfs"
)

// Container makes the specification of a container in a sandbox.
func (r *Runtime) Container(s *Sandbox, id string, c cri.Container, image Image) (*specs.Spec, error) {
	user, err := containerUser(c.Security, image)
	if err != nil {
		return nil, err
	}
	score := int(c.OOMScoreAdj)
	spec := &specs.Spec{
		Version: r.Release.ociVersion(), Root: &specs.Root{Path: "rootfs", Readonly: c.ReadonlyRoot},
		Process: &specs.Process{
			Terminal: c.TTY, User: user, Args: args(c, image), Env: r.env(s, c, image),
			Cwd:          cmp.Or(c.WorkingDir, image.Config.WorkingDir, "/"),
			Capabilities: sets(r.capabilities(c.Security)), NoNewPrivileges: c.Security.NoNewPrivs, OOMScoreAdj: &score,
		},
		Annotations: r.annotations(s, "container"),
		Linux: &specs.Linux{
			Resources: resources(c), CgroupsPath: path.Join(s.config.CgroupParent, id), Namespaces: r.namespaces(s),
			MaskedPaths: c.Security.MaskedPaths, ReadonlyPaths: c.Security.ReadonlyPaths,
		},
	}
	spec.Annotations[criKey+"container-name"] = c.Name
	spec.Annotations[criKey+"image-name"] = r.imageName(image)
	r.addDevices(spec, c)
	r.addMounts(spec, s, id, c, image)
	return spec, nil
}

// imageName is how the annotation names an image: as the manifest does, or before
// containerd 2 by the first in order of the node's references.
func (r *Runtime) imageName(image Image) string {
	ref, err := images.ParseReference(image.Name)
	if !r.Release.before2() || err != nil {
		return image.Name
	}
	name := ref.Name() + ":" + ref.Tag
	if ref.Digest != "" {
		name = ref.Name() + "@" + string(ref.Digest)
	}
	return slices.Min(append(slices.Clone(image.Also), name))
}

// args are the command and its arguments; those of the image where the pod gives
// neither, and its entry point where the pod gives arguments alone.
func args(c cri.Container, image Image) []string {
	command, args := c.Command, c.Args
	if len(command) == 0 {
		if len(args) == 0 {
			args = image.Config.Cmd
		}
		if entry := image.Config.Entrypoint; len(entry) != 1 || entry[0] != "" {
			command = entry
		}
	}
	return slices.Concat(command, args)
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (r *Runtime) env(s *Sandbox, c cri.Container, image Image) []string {
	out := []string{defaultPath}
	if c.TTY {
		out = append(out, "TERM=xterm")
	}
	out = append(out, "HOSTNAME="+r.hostname(s.config))
	more := slices.Clone(image.Config.Env)
	for _, v := range c.Env {
		more = append(more, v.Name+"="+v.Value)
	}
	return addEnv(out, more)
}

// addEnv replaces variables of a list by later ones and appends the others, which
// may then be there twice: an image's, then the pod's. One without "=" removes.
func addEnv(list, more []string) []string {
	known := map[string]int{}
	for i, v := range list {
		name, _, _ := strings.Cut(v, "=")
		known[name] = i
	}
	removed := map[int]bool{}
	for _, v := range more {
		name, _, isSet := strings.Cut(v, "=")
		i, ok := known[name]
		switch {
		case ok && isSet:
			list[i], removed[i] = v, false
		case ok:
			removed[i] = true
		case isSet:
			list = append(list, v)
		}
	}
	var out []string
	for i, v := range list {
		if !removed[i] {
			out = append(out, v)
		}
	}
	return out
}

func resources(c cri.Container) *specs.LinuxResources {
	out := &specs.LinuxResources{
		Devices: noDevices(), Memory: &specs.LinuxMemory{},
		CPU: &specs.LinuxCPU{Shares: &c.Resources.Shares, Period: &c.Resources.Period},
	}
	if c.Resources.Quota != 0 {
		out.CPU.Quota = &c.Resources.Quota
	}
	if c.Resources.Memory != 0 {
		out.Memory.Limit, out.Memory.Swap = &c.Resources.Memory, &c.Resources.Swap
	}
	for _, h := range c.Resources.Huge {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.Size, Limit: h.Limit})
	}
	return out
}

func (r *Runtime) namespaces(s *Sandbox) []specs.LinuxNamespace {
	const pid = "/proc/4577/ns/" // of the pause container on the host, which no guest sees
	pids := specs.LinuxNamespace{Type: specs.PIDNamespace}
	if s.config.SharePIDs {
		pids.Path = pid + "pid"
	}
	return []specs.LinuxNamespace{
		pids, {Type: specs.IPCNamespace, Path: pid + "ipc"}, {Type: specs.UTSNamespace, Path: pid + "uts"},
		{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: pid + "net"},
	}
}

func (r *Runtime) addDevices(spec *specs.Spec, c cri.Container) {
	for _, d := range c.Devices {
		mode, id := new(os.FileMode(0o660)), uint32(0)
		spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{
			Path: d.ContainerPath, Type: "b", Major: 8, Minor: 1, FileMode: mode, UID: &id, GID: &id,
		})
	}
	for i := range c.VFIO {
		mode, id := new(os.FileMode(0o600)), uint32(0)
		spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{
			Path: fmt.Sprintf("/dev/vfio/devices/vfio%d", i), Type: "c", Major: 237, Minor: int64(i), FileMode: mode, UID: &id, GID: &id,
		})
	}
}

// addMounts adds the usual mounts that the container does not replace, then its
// volumes and files, those with fewer directories in their path first.
func (r *Runtime) addMounts(spec *specs.Spec, s *Sandbox, id string, c cri.Container, image Image) {
	mounts := slices.Concat(c.Mounts, r.ownMounts(s, c), r.imageVolumes(id, c, image))
	depth := func(m cri.Mount) int { return strings.Count(path.Clean(m.ContainerPath), "/") }
	slices.SortStableFunc(mounts, func(a, b cri.Mount) int { return cmp.Compare(depth(a), depth(b)) })
	mode := "ro"
	if c.Security.Privileged {
		mode = "rw"
	}
	cgroup := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", mode}}
	for _, m := range append(baseMounts(mode), cgroup) {
		below := strings.HasPrefix(m.Destination, "/dev/") && mounted(mounts, "/dev")
		if !below && !mounted(mounts, m.Destination) {
			spec.Mounts = append(spec.Mounts, m)
		}
	}
	for _, m := range mounts {
		spec.Mounts = append(spec.Mounts, r.bind(spec, m))
	}
}

func mounted(mounts []cri.Mount, at string) bool {
	return slices.ContainsFunc(mounts, func(m cri.Mount) bool { return path.Clean(m.ContainerPath) == at })
}

func (r *Runtime) bind(spec *specs.Spec, m cri.Mount) specs.Mount {
	out := specs.Mount{Destination: m.ContainerPath, Type: "bind", Source: m.HostPath, Options: []string{"rbind", string(m.Propagation)}}
	if real, _, ok := r.Files.Stat(m.HostPath); ok {
		out.Source = real
	} else {
		r.Files[m.HostPath] = hostfs.File{Mode: hostfs.Directory | 0o755}
	}
	switch {
	case m.Propagation == cri.Bidirectional:
		spec.Linux.RootfsPropagation = string(cri.Bidirectional)
	case m.Propagation == cri.HostToContainer && spec.Linux.RootfsPropagation == "":
		spec.Linux.RootfsPropagation = string(cri.HostToContainer)
	}
	mode := "rw"
	if m.Readonly {
		mode = "ro"
	}
	out.Options = append(out.Options, mode)
	return out
}

// ownMounts are the files that containerd itself gives to a container.
func (r *Runtime) ownMounts(s *Sandbox, c cri.Container) []cri.Mount {
	var out []cri.Mount
	for _, m := range []cri.Mount{
		{ContainerPath: "/etc/hostname", HostPath: s.dir + "/hostname", Readonly: c.ReadonlyRoot},
		{ContainerPath: "/etc/resolv.conf", HostPath: s.dir + "/resolv.conf", Readonly: c.ReadonlyRoot},
		{ContainerPath: "/dev/shm", HostPath: s.shm},
	} {
		m.Propagation = cri.Private
		if !mounted(c.Mounts, m.ContainerPath) {
			out = append(out, m)
		}
	}
	return out
}

// imageVolumes are the volumes that the image declares.
func (r *Runtime) imageVolumes(id string, c cri.Container, image Image) []cri.Mount {
	var out []cri.Mount
	for _, at := range image.Config.Volumes {
		if mounted(c.Mounts, path.Clean(at)) {
			continue
		}
		source := "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/" + id + "/volumes/" + r.Node.Random.Hex(64)
		r.Files[source] = hostfs.File{Mode: hostfs.Directory | 0o755}
		out = append(out, cri.Mount{ContainerPath: at, HostPath: source, Propagation: cri.Private})
	}
	return out
}
