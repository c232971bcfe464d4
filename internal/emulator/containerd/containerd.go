// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/images"
	"portcullis/internal/emulator/cri"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
)

// ErrRefused is returned for what containerd would not start.
var ErrRefused = errors.New("containerd refuses the container")

// Runtime is containerd on a node.
type Runtime struct {
	Release      Release
	Node         *node.Node
	Files        hostfs.FS
	Capabilities []string // what a container with all capabilities gets; nil means all that Linux has
}

// Image is what containerd knows of an image.
type Image struct {
	Name     string           // as the manifest has it
	Config   images.Config    // of the image
	Accounts *images.Accounts // nil where its files are not on the node, as in guests that pull themselves
	Also     []string         // other references that the node has for the same image
}

// Sandbox is a pod's sandbox: its specification and where its files are.
type Sandbox struct {
	ID     string
	Spec   *specs.Spec
	config cri.Sandbox
	dir    string // of resolv.conf and hostname
	shm    string
}

// Bundle is the directory of a container's specification.
func (r *Runtime) Bundle(id string) string {
	return r.Node.ContainerdDir + "/io.containerd.runtime.v2.task/k8s.io/" + id
}

// Sandbox makes the sandbox of a pod from the image of the pause container.
func (r *Runtime) Sandbox(id string, c cri.Sandbox, pause Image) (*Sandbox, error) {
	s := &Sandbox{
		ID: id, config: c, dir: "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/" + id,
		shm: r.Node.ContainerdDir + "/io.containerd.grpc.v1.cri/sandboxes/" + id + "/shm",
	}
	resolv := node.DNS(c.DNS)
	r.Files[s.dir+"/resolv.conf"] = hostfs.File{Mode: hostfs.Regular | 0o644, Data: text(resolv.Lines())}
	r.Files[s.dir+"/hostname"] = hostfs.File{Mode: hostfs.Regular | 0o644, Data: []byte(r.hostname(c) + "\n")}
	r.Files[s.shm] = hostfs.File{Mode: hostfs.Directory | 0o1777, FileSystem: "tmpfs"}
	user, err := sandboxUser(c, pause)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	cwd := pause.Config.WorkingDir
	if cwd == "" {
		cwd = "/"
	}
	score := -998
	s.Spec = &specs.Spec{
		Version: r.Release.ociVersion(), Hostname: c.Hostname, Root: &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			User: user, Args: slices.Concat(pause.Config.Entrypoint, pause.Config.Cmd), Cwd: cwd,
			Env: addEnv([]string{defaultPath}, pause.Config.Env), Capabilities: sets(defaultCapabilities()),
			NoNewPrivileges: true, OOMScoreAdj: &score,
		},
		Mounts: r.sandboxMounts(s), Annotations: r.sandboxAnnotations(s, pause),
		Linux: &specs.Linux{
			Sysctl: r.sandboxSysctls(c), CgroupsPath: path.Join(c.CgroupParent, id),
			Resources:   &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(2))}, Devices: noDevices()},
			Namespaces:  r.sandboxNamespaces(c),
			MaskedPaths: r.Release.maskedOfSandbox(), ReadonlyPaths: readonlyPaths(),
		},
	}
	return s, nil
}

func text(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// Resolv are the lines of the sandbox's resolv.conf, with the empty one at the end.
func (s *Sandbox) Resolv(files hostfs.FS) []string {
	return strings.Split(string(files[s.dir+"/resolv.conf"].Data), "\n")
}

func noDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
}

// hostname is what containers see in /etc/hostname and in HOSTNAME.
func (r *Runtime) hostname(c cri.Sandbox) string {
	if c.Hostname == "" {
		return r.Node.Name
	}
	return c.Hostname
}

func (r *Runtime) sandboxSysctls(c cri.Sandbox) map[string]string {
	out := map[string]string{}
	if !c.HostNetwork {
		maps.Copy(out, r.Release.sandboxSysctls())
	}
	maps.Copy(out, c.Sysctls)
	return out
}

func (r *Runtime) sandboxNamespaces(c cri.Sandbox) []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	if !c.HostPID {
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if !c.HostIPC {
		out = append(out, specs.LinuxNamespace{Type: specs.IPCNamespace})
	}
	if !c.HostNetwork {
		out = append(out, specs.LinuxNamespace{Type: specs.UTSNamespace})
	}
	out = append(out, specs.LinuxNamespace{Type: specs.MountNamespace})
	if !c.HostNetwork {
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/var/run/netns/cni-" + r.Node.Random.UUID()})
	}
	return out
}

func (r *Runtime) sandboxMounts(s *Sandbox) []specs.Mount {
	mode := "ro"
	if s.config.Privileged && !r.Release.before2() {
		mode = "rw"
	}
	out := baseMounts(mode)
	own := []string{"rbind", "ro"}
	if r.Release == V1_6 {
		shm := specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}}
		out = slices.Insert(out, 3, shm)
	} else {
		own = append(own, "nosuid", "nodev", "noexec")
	}
	return append(out,
		specs.Mount{Destination: "/dev/shm", Type: "bind", Source: s.shm, Options: own},
		specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: s.dir + "/resolv.conf", Options: own})
}

// baseMounts are the mounts that every container begins with.
func baseMounts(sys string) []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
	}
}

const criKey = "io.kubernetes.cri."

func (r *Runtime) sandboxAnnotations(s *Sandbox, pause Image) map[string]string {
	c := s.config
	out := r.annotations(s, "sandbox")
	maps.Copy(out, map[string]string{
		criKey + "sandbox-log-directory": c.LogDirectory,
		criKey + "sandbox-cpu-period":    strconv.FormatUint(c.Resources.Period, 10),
		criKey + "sandbox-cpu-quota":     strconv.FormatInt(c.Resources.Quota, 10),
		criKey + "sandbox-cpu-shares":    strconv.FormatUint(c.Resources.Shares, 10),
		criKey + "sandbox-memory":        strconv.FormatInt(c.Resources.Memory, 10),
	})
	if !r.Release.before2() {
		out[criKey+"podsandbox.image-name"] = pause.Name
	}
	return out
}

// annotations are those of every container of the pod: its identity, and of the pod's own those that are meant for Kata.
func (r *Runtime) annotations(s *Sandbox, kind string) map[string]string {
	out := map[string]string{
		criKey + "container-type": kind, criKey + "sandbox-id": s.ID, criKey + "sandbox-name": s.config.Name,
		criKey + "sandbox-namespace": s.config.Namespace, criKey + "sandbox-uid": s.config.UID,
	}
	for key, value := range s.config.Annotations {
		if strings.HasPrefix(key, "io.katacontainers.") {
			out[key] = value
		}
	}
	return out
}
