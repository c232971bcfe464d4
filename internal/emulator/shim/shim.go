// SPDX-License-Identifier: Apache-2.0

// Package shim makes the requests that Kata's shims send to the agent for a container's specification: the Go shim and
// runtime-rs, with files shared over virtio-fs or copied, with images pulled in the guest or shared. Everything here was learned
// from recordings of Kata 4.1.0 and is held to them.
package shim

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
)

// Kind is one of Kata's shims.
type Kind string

// Values of Kind.
const (
	Go        Kind = "go"
	RuntimeRS Kind = "rs"
)

// Config is what Kata's configuration.toml decides of the requests.
type Config struct {
	Kind         Kind
	SharedFiles  bool // shared_fs = "virtio-fs"; else files are copied
	GuestPull    bool // images are pulled in the guest
	EmptyDirs    EmptyDirs
	Network      bool // the shim sets up the guest's network; not for peer pods
	PullMetadata bool // the image pull repeats the annotations; Kata after 4.1 leaves them out
}

// EmptyDirs is where volumes of emptyDir on disk are.
type EmptyDirs string

// Values of EmptyDirs. The block devices were not recorded: what is sent for them follows from Kata's documentation.
const (
	GuestDirs       EmptyDirs = ""                // a directory of the guest
	HostDirs        EmptyDirs = "host"            // disable_guest_empty_dir: on the host
	CopiedDirs      EmptyDirs = "copied"          // the same where files are copied, as Kata 4.1 does: one empty directory for the pod
	EncryptedBlocks EmptyDirs = "block-encrypted" // a disk that the guest encrypts
	PlainBlocks     EmptyDirs = "block-plain"     // a disk
)

// Shim is the shim of one sandbox.
type Shim struct {
	Config    Config
	Files     hostfs.FS // of the node
	Random    *node.Random
	sandboxID string
	shared    map[string]string // where a file of the node is in the guest that is shared by the pod's containers
	disks     map[string]string // addresses of the disks of volumes
}

// New returns the shim of a sandbox.
func New(c Config, files hostfs.FS, random *node.Random) *Shim {
	return &Shim{Config: c, Files: files, Random: random, shared: map[string]string{}, disks: map[string]string{}}
}

// Directories of the guest.
const (
	kataDir      = "/run/kata-containers/"
	sharedDir    = kataDir + "shared/containers/"
	passthrough  = sharedDir + "passthrough/"
	shmDir       = kataDir + "sandbox/shm"
	ephemeralDir = kataDir + "sandbox/ephemeral/"
)

// Interface is the pod's network interface, as the shim finds it in the network namespace.
type Interface struct{ IP, LinkLocal, MAC, Gateway string }

// CreateSandbox returns the requests before the first container: the network, the
// sandbox with the lines of its resolv.conf, the question for the guest's details.
func (s *Shim) CreateSandbox(id string, spec *specs.Spec, resolv []string, network Interface) []proto.Message {
	s.sandboxID = id
	var out []proto.Message
	if s.Config.Network && s.Config.Kind == Go && networkNamespace(spec) != "" {
		out = append(out, s.network(network)...)
	}
	create := &agentpb.CreateSandboxRequest{
		Hostname: spec.Hostname, Dns: resolv, SandboxId: id,
		Storages: []*agentpb.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: shmDir,
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
		}},
	}
	if s.Config.SharedFiles {
		share := &agentpb.Storage{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: sharedDir}
		if s.Config.Kind == RuntimeRS {
			share.Options = []string{"nodev"}
		}
		create.Storages = append([]*agentpb.Storage{share}, create.Storages...)
	}
	return append(out, create, &agentpb.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
}

func (s *Shim) network(n Interface) []proto.Message {
	eth0 := &agentpb.Interface{
		Device: "eth0", Name: "eth0", Mtu: 1500, HwAddr: n.MAC, Type: "virtual",
		IPAddresses: []*agentpb.IPAddress{{Family: agentpb.IPFamily_v4, Address: n.IP, Mask: "24"}},
	}
	if n.LinkLocal != "" {
		eth0.IPAddresses = append(eth0.IPAddresses, &agentpb.IPAddress{Family: agentpb.IPFamily_v6, Address: n.LinkLocal, Mask: "64"})
	}
	route := &agentpb.Route{Dest: "0.0.0.0/0", Gateway: n.Gateway, Device: "eth0"}
	return []proto.Message{
		&agentpb.UpdateInterfaceRequest{Interface: eth0},
		&agentpb.UpdateRoutesRequest{Routes: &agentpb.Routes{Routes: []*agentpb.Route{route}}},
	}
}

func networkNamespace(spec *specs.Spec) string {
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			return n.Path
		}
	}
	return ""
}

// CreateContainer returns the requests that create a container: files that are copied, then the container.
func (s *Shim) CreateContainer(id, bundle string, spec *specs.Spec) []proto.Message {
	c := &container{shim: s, id: id, spec: spec, create: &agentpb.CreateContainerRequest{ContainerId: id}}
	if s.Config.Kind == Go {
		c.create.ExecId = id
	}
	c.create.OCI = c.convert(bundle)
	c.create.SandboxPidns = c.sharesPIDs()
	c.devices() // adds annotations, which the image pull repeats
	if s.Config.GuestPull {
		c.pull()
	}
	c.mounts()
	out := append(slices.Clone(c.copies), message(c.create))
	if s.Config.Kind == RuntimeRS {
		out = append(out, c.again()...)
	}
	return out
}

// StartContainer starts a container's process.
func (s *Shim) StartContainer(id string) proto.Message {
	return &agentpb.StartContainerRequest{ContainerId: id}
}

// ExecID returns the id of a process that is run in a container.
func (s *Shim) ExecID() string {
	if s.Config.Kind == RuntimeRS {
		return s.Random.ID()
	}
	return s.Random.UUID()
}

// Exec runs a process in a container. Neither shim passes capabilities or NoNewPrivileges on.
func (s *Shim) Exec(id, execID string, p *specs.Process) proto.Message {
	process := convertProcess(p)
	process.Capabilities, process.NoNewPrivileges = nil, false
	if s.Config.Kind == Go {
		process.OOMScoreAdj = 0
	}
	return &agentpb.ExecProcessRequest{ContainerId: id, ExecId: execID, Process: process}
}

// Wait waits for a process; "" is the container's own.
func (s *Shim) Wait(id, execID string) proto.Message {
	return &agentpb.WaitProcessRequest{ContainerId: id, ExecId: s.process(id, execID)}
}

// process is how the shim names a container's own process.
func (s *Shim) process(id, execID string) string {
	if execID == "" && s.Config.Kind == Go {
		return id
	}
	return execID
}

// Signal sends a signal to a process.
func (s *Shim) Signal(id, execID string, signal uint32) proto.Message {
	return &agentpb.SignalProcessRequest{ContainerId: id, ExecId: execID, Signal: signal}
}

// Read reads a stream of a process.
func (s *Shim) Read(id, execID string) proto.Message {
	length := uint32(32768)
	if s.Config.Kind == RuntimeRS {
		length = 8192
	}
	return &agentpb.ReadStreamRequest{ContainerId: id, ExecId: s.process(id, execID), Len: length}
}

// Write sends text to the standard input of a process and closes it.
func (s *Shim) Write(id, execID string, text []byte) []proto.Message {
	out := []proto.Message{&agentpb.WriteStreamRequest{ContainerId: id, ExecId: execID, Data: text}}
	if s.Config.Kind == RuntimeRS {
		return append(out, &agentpb.WriteStreamRequest{ContainerId: id, ExecId: execID})
	}
	return append(out, &agentpb.CloseStdinRequest{ContainerId: id, ExecId: execID})
}

// Stats asks for a container's counters.
func (s *Shim) Stats(id string) proto.Message {
	return &agentpb.StatsContainerRequest{ContainerId: id}
}

// Remove removes a container.
func (s *Shim) Remove(id string) []proto.Message {
	if s.Config.Kind == RuntimeRS {
		return []proto.Message{&agentpb.RemoveContainerRequest{ContainerId: id, Timeout: 10}}
	}
	return []proto.Message{&agentpb.RemoveContainerRequest{ContainerId: id}, &agentpb.RemoveStaleVirtiofsShareMountsRequest{}}
}

// DestroySandbox ends the pod.
func (s *Shim) DestroySandbox() proto.Message { return &agentpb.DestroySandboxRequest{} }

// OOMEvent waits for the next process that the guest's kernel kills.
func (s *Shim) OOMEvent() proto.Message { return &agentpb.GetOOMEventRequest{} }

// guestName is the name under which a file of the node is in the guest.
func (s *Shim) guestName(id, source, base string) string {
	if s.Config.Kind == RuntimeRS && s.Config.SharedFiles {
		if s.shared[source] == "" {
			s.shared[source] = fmt.Sprintf("sandbox-%s-%s", s.Random.Hex(8), source[strings.LastIndex(source, "/")+1:])
		}
		return s.shared[source]
	}
	return fmt.Sprintf("%s-%s-%s", id, s.Random.Hex(16), base)
}
