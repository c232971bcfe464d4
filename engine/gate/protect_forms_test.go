// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

// ordinary is a container as runtimes send it, with what change makes of it.
func ordinary(change func(*agentpb.CreateContainerRequest)) *agentpb.CreateContainerRequest {
	r := createContainer("app", "sh")
	for _, m := range [][3]string{
		{"/proc", "proc", "proc"}, {"/dev", "tmpfs", "tmpfs"}, {"/dev/pts", "devpts", "devpts"}, {"/dev/mqueue", "mqueue", "mqueue"},
		{"/sys", "sysfs", "sysfs"}, {"/sys/fs/cgroup", "cgroup", "cgroup"}, {"/dev/shm", "/run/kata-containers/sandbox/shm", "bind"},
		{"/work", "/run/kata-containers/shared/containers/app/rootfs/local/work", "local"}, {"/null", "/dev/null", "bind"},
	} {
		r.OCI.Mounts = append(r.OCI.Mounts, &agentpb.Mount{Destination: m[0], Source: m[1], Type: m[2], Options: []string{"nosuid", "size=65536k"}})
	}
	r.OCI.Linux = &agentpb.Linux{
		CgroupsPath: "/kubepods/besteffort/pod1/app",
		Namespaces:  []*agentpb.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
		Sysctl:      map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1"},
		Devices:     []*agentpb.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}, {Path: "/dev/disk1", Type: "b", Major: 8, Minor: 16}},
		Resources: &agentpb.LinuxResources{Devices: []*agentpb.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: -1, Minor: -1, Access: "m"}, {Allow: true, Type: "c", Major: 1, Minor: 3, Access: "rwm"}}},
	}
	r.Devices = []*agentpb.Device{{Type: "blk", VmPath: "02/03", ContainerPath: "/dev/disk1"}}
	r.Storages = []*agentpb.Storage{
		{Driver: "image_guest_pull", Source: "docker.io/library/busybox:1.36", Fstype: "overlay", MountPoint: "/run/kata-containers/app/rootfs",
			DriverOptions: []string{`image_guest_pull={"metadata":{"mounts":"/proc,/sys,/dev,/","x":"/etc"}}`}},
		{Driver: "blk", Source: "02/03", Fstype: "ext4", MountPoint: "/run/kata-containers/sandbox/storage/MDIvMDM=",
			DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem", "key=kbs:///default/keys/db", "hash=9/ab+c/d="}},
		{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/ephemeral/m", Options: []string{"fsgid=2000"}},
		{Driver: "overlayfs", Source: "none", Fstype: "overlay", MountPoint: "/run/kata-containers/app/x", Options: []string{"lowerdir=/run/kata-containers/a:/run/kata-containers/b", "workdir=/run/kata-containers/w"},
			DriverOptions: []string{"io.katacontainers.volume.overlayfs.create_directory=/run/kata-containers/shared/containers/app/fs"}},
		{Driver: "watchable-bind", Source: "/run/kata-containers/shared/containers/a-1-cm", Fstype: "bind", MountPoint: "/run/kata-containers/shared/containers/watchable/a-1-cm", Options: []string{"rbind", "ro"}},
	}
	if change != nil {
		change(r)
	}
	return r
}

func TestOrdinaryContainersPassTheSelfProtection(t *testing.T) {
	c := newRig(t, rigOptions{policy: allowAll}).client()
	c.must("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod", Storages: []*agentpb.Storage{
		{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: "/run/kata-containers/shared/containers/", Options: []string{"nodev"}}}})
	c.must("CreateContainer", ordinary(nil))
	c.must("CreateContainer", ordinary(func(r *agentpb.CreateContainerRequest) {
		r.ContainerId = "peer"
		r.OCI.Linux.Namespaces = append(r.OCI.Linux.Namespaces, &agentpb.LinuxNamespace{Type: "network", Path: "/run/netns/podns"})
		r.OCI.Linux.CgroupsPath = "kubepods-burstable-pod1.slice:cri-containerd:peer"
	}))
	for target, path := range map[string]string{"..data/key": "v/key", "..2026_11_28": "v/..data", "/var/log/pods/x/0.log": "v/log"} {
		c.must("CopyFile", &agentpb.CopyFileRequest{Path: shared + path, FileMode: 0o120777, Data: []byte(target)})
	}
	c.must("UpdateContainer", &agentpb.UpdateContainerRequest{ContainerId: "app", Resources: &agentpb.LinuxResources{}})
}

// form is another name for what the gate protects.
type form struct {
	method string
	req    proto.Message
	allow  string // the word of gate.allow that leaves it to the policy; empty: none
}

// driverOption has the agent make a directory for a storage.
func driverOption(allow, dir string) form {
	return container(allow, func(r *agentpb.CreateContainerRequest) {
		r.Storages = []*agentpb.Storage{{Driver: "overlayfs", Source: "none", Fstype: "overlay", MountPoint: "/run/kata-containers/x",
			DriverOptions: []string{"io.katacontainers.volume.overlayfs.create_directory=" + dir}}}
	})
}

func bindOf(source, allow string) form {
	return container(allow, func(r *agentpb.CreateContainerRequest) {
		r.OCI.Mounts = append(r.OCI.Mounts, &agentpb.Mount{Destination: "/x", Source: source, Type: "bind", Options: []string{"rbind"}})
	})
}

func container(allow string, change func(*agentpb.CreateContainerRequest)) form {
	return form{"CreateContainer", ordinary(change), allow}
}

func storageOf(s *agentpb.Storage) form {
	return container("", func(r *agentpb.CreateContainerRequest) { r.Storages = append(r.Storages, s) })
}

func mountOf(allow string, m *agentpb.Mount) form {
	return container(allow, func(r *agentpb.CreateContainerRequest) { r.OCI.Mounts = append(r.OCI.Mounts, m) })
}

func nodeOf(kind string, major, minor int64) form {
	return container("devices", func(r *agentpb.CreateContainerRequest) {
		r.OCI.Linux.Devices = append(r.OCI.Linux.Devices, &agentpb.LinuxDevice{Path: "/dev/x", Type: kind, Major: major, Minor: minor})
	})
}

func linkTo(target, allow string) form {
	return form{"CopyFile", &agentpb.CopyFileRequest{Path: shared + "a/b/c", FileMode: 0o120777, Data: []byte(target)}, allow}
}

func paths() map[string]form {
	forms := map[string]form{}
	for _, source := range []string{
		"run/portcullis", "./run/portcullis", "../run/portcullis", ".", "..", "", "/run/./portcullis", "/tmp/../run/portcullis", "//run//portcullis", "/run/portcullis/", "/run/portcullis\x00", "/opt\x00/x",
		"/run", "/", "/etc", "/var/run", "/usr/../run/portcullis/agent.sock", "/var/run/portcullis", "/run/x/../../dev/tpm0", "/dev/tpmrm0", "/sys/kernel/config/tsm/report", "/opt/..", "/opt/./a",
	} {
		forms["bind of "+source] = bindOf(source, "")
	}
	for _, source := range []string{
		"/proc", "/proc/1/root", "/proc/self/root/run/portcullis", "/proc/thread-self/cwd", "//proc/1/root", "/sys", "/sys/class/tpm", "/sys/dev/char/10:224", "/sys/kernel/config",
		"/dev", "/dev/char", "/dev/char/10:224", "/dev//block/254:0", "/dev/disk/by-id/x", "/dev/fd/7", "/dev/mem", "/dev/kmsg", "/dev/cpu/0/msr", "/dev/snapshot", "/dev/vtpmx", "/run/initctl", "/var", "/run/systemd/private",
	} {
		forms["bind of "+source] = bindOf(source, filepath.Clean(source))
	}
	return forms
}

func mountsAndStorages() map[string]form {
	return map[string]form{
		"bind by an option": mountOf("", &agentpb.Mount{Destination: "/x", Source: "run/portcullis", Type: "none", Options: []string{"ro,rbind"}}),
		"devtmpfs":          mountOf("mount:devtmpfs", &agentpb.Mount{Destination: "/x", Source: "devtmpfs", Type: "devtmpfs"}),
		"configfs":          mountOf("mount:configfs", &agentpb.Mount{Destination: "/x", Source: "none", Type: "configfs"}),
		"debugfs":           mountOf("mount:debugfs", &agentpb.Mount{Destination: "/x", Source: "none", Type: "debugfs"}),
		"disk by a path":    mountOf("", &agentpb.Mount{Destination: "/x", Source: "dev/vda", Type: "ext4"}),
		"layer":             mountOf("", &agentpb.Mount{Destination: "/x", Source: "overlay", Type: "overlay", Options: []string{"lowerdir=/a:/run/portcullis"}}),
		"relative layer":    mountOf("", &agentpb.Mount{Destination: "/x", Source: "overlay", Type: "overlay", Options: []string{"lowerdir=run/portcullis,upperdir=/a"}}),
		"escaped layer":     mountOf("", &agentpb.Mount{Destination: "/x", Source: "overlay", Type: "overlay", Options: []string{`lowerdir=/run/port\cullis`}}),
		"layer added":       mountOf("", &agentpb.Mount{Destination: "/x", Source: "overlay", Type: "overlay", Options: []string{"lowerdir+=/run/portcullis"}}),
		"layer of /proc":    mountOf("/proc/1/root", &agentpb.Mount{Destination: "/x", Source: "overlay", Type: "overlay", Options: []string{"datadir+=/proc/1/root"}}),
		"relative device":   mountOf("", &agentpb.Mount{Destination: "/x", Source: "x", Type: "erofs", Options: []string{"ro,device=run/portcullis/x"}}),
		"journal elsewhere": mountOf("/dev/mem", &agentpb.Mount{Destination: "/x", Source: "x", Type: "ext4", Options: []string{"journal_path=/dev/mem"}}),
		"moved mount":       mountOf("", &agentpb.Mount{Destination: "/x", Source: "run", Type: "none", Options: []string{"move"}}),
		"path in an option": mountOf("", &agentpb.Mount{Destination: "/x", Source: "x", Type: "ext4", Options: []string{`x-a "/run/portcullis"`}}),
		"option with a zero byte": mountOf("", &agentpb.Mount{Destination: "/x", Source: "x", Type: "ext4",
			Options: []string{"a\x00lowerdir=b"}}),
		"shared mount": container("/proc/1/root", func(r *agentpb.CreateContainerRequest) {
			r.SharedMounts = []*agentpb.SharedMount{{Name: "n", SrcPath: "/proc/1/root"}}
		}),
		"storage bind":                         storageOf(&agentpb.Storage{Driver: "local", Source: "run/portcullis", Options: []string{"bind"}, MountPoint: "/run/kata-containers/x"}),
		"storage bind of nothing":              storageOf(&agentpb.Storage{Driver: "bind", MountPoint: "/run/kata-containers/x"}),
		"storage by driver":                    storageOf(&agentpb.Storage{Driver: "watchable-bind", Source: "run", MountPoint: "/run/kata-containers/x"}),
		"storage source":                       storageOf(&agentpb.Storage{Driver: "nvdimm", Source: "dev/tpm0", Fstype: "ext4", MountPoint: "/run/kata-containers/x"}),
		"storage source of a pull":             storageOf(&agentpb.Storage{Driver: "image_guest_pull", Source: "/run/portcullis", MountPoint: "/run/kata-containers/x"}),
		"storage climbing address":             storageOf(&agentpb.Storage{Driver: "blk", Source: "02/../run", MountPoint: "/run/kata-containers/x"}),
		"storage place":                        storageOf(&agentpb.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: "run/portcullis"}),
		"storage place by a link":              storageOf(&agentpb.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: "/var/run/portcullis/x"}),
		"storage driver option":                storageOf(&agentpb.Storage{Driver: "image_guest_pull", Source: "x", DriverOptions: []string{`image_guest_pull={"metadata":{"k":"/run/portcullis"}}`}}),
		"storage driver's directory":           driverOption("", "/run/portcullis/x"),
		"storage driver's directory, relative": driverOption("", "run/portcullis/x"),
		"storage driver's directory, above":    driverOption("", "/etc"),
		"storage driver's directory, a word":   driverOption("", "run"),
		"storage driver's directory, climbing": driverOption("", "run/x;/../portcullis/y"),
		"storage driver's directory in /proc":  driverOption("/proc/1/root/run/x", "/proc/1/root/run/x"),
		"storage type": {"CreateContainer", ordinary(func(r *agentpb.CreateContainerRequest) {
			r.Storages = []*agentpb.Storage{{Driver: "ephemeral", Source: "none", Fstype: "devtmpfs", MountPoint: "/run/kata-containers/x"}}
		}), "mount:devtmpfs"},
		"ephemeral mount":         {"UpdateEphemeralMounts", &agentpb.UpdateEphemeralMountsRequest{Storages: []*agentpb.Storage{{MountPoint: "run/portcullis"}}}, ""},
		"ephemeral bind":          {"UpdateEphemeralMounts", &agentpb.UpdateEphemeralMountsRequest{Storages: []*agentpb.Storage{{Driver: "ephemeral", Source: "/proc/self/root", Options: []string{"bind"}}}}, "/proc/self/root"},
		"sandbox's storage":       {"CreateSandbox", &agentpb.CreateSandboxRequest{Storages: []*agentpb.Storage{{MountPoint: "var/run/portcullis"}}}, ""},
		"root relative":           container("", func(r *agentpb.CreateContainerRequest) { r.OCI.Root.Path = "run/portcullis" }),
		"root empty":              container("", func(r *agentpb.CreateContainerRequest) { r.OCI.Root.Path = "" }),
		"root by /proc":           container("/proc/1/root", func(r *agentpb.CreateContainerRequest) { r.OCI.Root.Path = "/proc/1/root" }),
		"file, relative":          {"CopyFile", &agentpb.CopyFileRequest{Path: "run/portcullis/journal.json", FileMode: 0o100644}, ""},
		"file that leaves":        {"CopyFile", &agentpb.CopyFileRequest{Path: shared + "../../../../opt/x", FileMode: 0o100644}, ""},
		"file by a link":          {"CopyFile", &agentpb.CopyFileRequest{Path: "/var/run/portcullis/journal.json", FileMode: 0o100644}, ""},
		"file by /proc":           {"CopyFile", &agentpb.CopyFileRequest{Path: "/proc/self/root/tmp/x", FileMode: 0o100644}, "/proc/self/root/tmp/x"},
		"link to /proc":           linkTo("/proc/self/root/run", "/proc/self/root/run"),
		"link to a link":          linkTo("/var/run/portcullis", ""),
		"link that climbs":        linkTo("../x", "upward-links"),
		"link that climbs inside": linkTo("d/../../x", "upward-links"),
		"link with a zero byte":   linkTo("..data\x00/x", ""),
		"swap":                    {"AddSwapPath", &agentpb.AddSwapPathRequest{Path: "dev/tpm0"}, ""},
		"volume figures":          {"GetVolumeStats", &agentpb.VolumeStatsRequest{VolumeGuestPath: "run/portcullis"}, ""},
		"volume size":             {"ResizeVolume", &agentpb.ResizeVolumeRequest{VolumeGuestPath: "./run/portcullis"}, ""},
	}
}

func devicesAndTheRest() map[string]form {
	rule := func(d *agentpb.LinuxDeviceCgroup) form {
		return container("devices", func(r *agentpb.CreateContainerRequest) {
			r.OCI.Linux.Resources.Devices = append(r.OCI.Linux.Resources.Devices, d)
		})
	}
	linux := func(allow string, change func(*agentpb.Linux)) form {
		return container(allow, func(r *agentpb.CreateContainerRequest) { change(r.OCI.Linux) })
	}
	return map[string]form{
		"node of tpm0":         nodeOf("c", 10, 224),
		"node of tpmrm0":       nodeOf("c", 253, 65536),
		"node of mem":          nodeOf("c", 1, 1),
		"node of a disk":       nodeOf("b", 254, 0),
		"unbuffered node":      nodeOf("u", 10, 224),
		"node of no kind":      nodeOf("", 10, 224),
		"node named as a disk": linux("devices", func(l *agentpb.Linux) { l.Devices[2].Type, l.Devices[2].Major, l.Devices[2].Minor = "c", 10, 224 }),
		"node of a device without one": container("devices", func(r *agentpb.CreateContainerRequest) {
			r.Devices[0].Type = "vfio-pci-gk" // a driver of the guest's kernel takes it, and the agent replaces no numbers
			r.OCI.Linux.Devices[2] = &agentpb.LinuxDevice{Path: "/dev/disk1", Type: "c", Major: 10, Minor: 224}
		}),
		"node outside":           linux("", func(l *agentpb.Linux) { l.Devices[0].Path = "/dev/../../run/x" }),
		"node twice as the disk": linux("devices", func(l *agentpb.Linux) { l.Devices = append(l.Devices, l.Devices[2]) }),
		"device by a path":       container("", func(r *agentpb.CreateContainerRequest) { r.Devices[0].VmPath = "dev/tpm0" }),
		"device by its number":   container("/dev/char/10:224", func(r *agentpb.CreateContainerRequest) { r.Devices[0].VmPath = "/dev/char/10:224" }),
		"device in the container": container("", func(r *agentpb.CreateContainerRequest) {
			r.Devices[0].ContainerPath = "/dev/tpm0"
		}),
		"rule for all devices":  rule(&agentpb.LinuxDeviceCgroup{Allow: true, Type: "a", Major: -1, Minor: -1, Access: "rwm"}),
		"rule for a major":      rule(&agentpb.LinuxDeviceCgroup{Allow: true, Type: "c", Major: 10, Minor: -1, Access: "r"}),
		"rule for a TPM":        rule(&agentpb.LinuxDeviceCgroup{Allow: true, Type: "c", Major: 10, Minor: 224, Access: "rw"}),
		"rule without a number": rule(&agentpb.LinuxDeviceCgroup{Allow: true, Access: "rwm"}),
		"rule of an update": {"UpdateContainer", &agentpb.UpdateContainerRequest{ContainerId: "app", Resources: &agentpb.LinuxResources{
			Devices: []*agentpb.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}}}, "devices"},
		"namespace of init":        linux("/proc/1/ns/ipc", func(l *agentpb.Linux) { l.Namespaces[0].Path = "/proc/1/ns/ipc" }),
		"namespace by another way": linux("/tmp/ns", func(l *agentpb.Linux) { l.Namespaces[0].Path = "/tmp/ns" }),
		"podns as another type":    linux("/run/netns/podns", func(l *agentpb.Linux) { l.Namespaces[0].Path = "/run/netns/podns" }),
		"other network namespace": linux("/run/netns/x", func(l *agentpb.Linux) {
			l.Namespaces = append(l.Namespaces, &agentpb.LinuxNamespace{Type: "network", Path: "/run/netns/x"})
		}),
		"no mount namespace":       linux("", func(l *agentpb.Linux) { l.Namespaces = l.Namespaces[:2] }),
		"no namespaces":            linux("", func(l *agentpb.Linux) { l.Namespaces = nil }),
		"cgroup of policyd":        linux("", func(l *agentpb.Linux) { l.CgroupsPath = "/system.slice/policyd.service" }),
		"cgroup below the agent's": linux("", func(l *agentpb.Linux) { l.CgroupsPath = "/kubepods/../system.slice/kata-agent.service/x" }),
		"cgroup as systemd has it": linux("", func(l *agentpb.Linux) { l.CgroupsPath = "system.slice:policyd:service" }),
		"cgroup of the root":       linux("", func(l *agentpb.Linux) { l.CgroupsPath = "/" }),
		"cgroup of a slice below":  linux("", func(l *agentpb.Linux) { l.CgroupsPath = "system-getty.slice:cri:x" }),
		"cgroup of a session":      linux("", func(l *agentpb.Linux) { l.CgroupsPath = "/kubepods/user-0.slice/x" }),
		"cgroup of a scope":        linux("", func(l *agentpb.Linux) { l.CgroupsPath = "/init.scope" }),
		"core pattern":             linux("sysctls", func(l *agentpb.Linux) { l.Sysctl["kernel.core_pattern"] = "|/x" }),
		"core pattern with slash":  linux("sysctls", func(l *agentpb.Linux) { l.Sysctl["kernel/core_pattern"] = "|/x" }),
		"core pattern by climbing": linux("", func(l *agentpb.Linux) { l.Sysctl["net/../kernel/core_pattern"] = "|/x" }),
		"module loader":            linux("sysctls", func(l *agentpb.Linux) { l.Sysctl["kernel.modprobe"] = "/x" }),
		"hook": container("hooks", func(r *agentpb.CreateContainerRequest) {
			r.OCI.Hooks = &agentpb.Hooks{Prestart: []*agentpb.Hook{{Path: "/x"}}}
		}),
		"late hook": container("hooks", func(r *agentpb.CreateContainerRequest) {
			r.OCI.Hooks = &agentpb.Hooks{Poststop: []*agentpb.Hook{{Path: "/x"}}}
		}),
		"working directory":        container("/proc/self/fd/7", func(r *agentpb.CreateContainerRequest) { r.OCI.Process.Cwd = "/proc/self/fd/7" }),
		"exec's working directory": {"ExecProcess", &agentpb.ExecProcessRequest{ContainerId: "app", ExecId: "e", Process: &agentpb.Process{Cwd: "//x/../proc/1/root", Args: []string{"sh"}}}, "/proc/1/root"},
		"container's id":           container("", func(r *agentpb.CreateContainerRequest) { r.ContainerId = "../../portcullis" }),
		"process's id":             {"SignalProcess", &agentpb.SignalProcessRequest{ContainerId: "app", ExecId: ".."}, ""},
		"sandbox's id":             {"CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "a/b"}, ""},
		"guest hooks":              {"CreateSandbox", &agentpb.CreateSandboxRequest{GuestHookPath: "/usr/share/oci/hooks"}, "guest-hooks"},
		"kernel module":            {"CreateSandbox", &agentpb.CreateSandboxRequest{KernelModules: []*agentpb.KernelModule{{Name: "x"}}}, "kernel-modules"},
	}
}

// Each of these passes a policy that allows everything, is refused all the same, and either never reaches the agent or does once
// the configuration has the word that the denial names.
func TestProtectedThingsAreProtectedByWhateverName(t *testing.T) {
	closed := newRig(t, rigOptions{policy: allowAll})
	for _, forms := range []map[string]form{paths(), mountsAndStorages(), devicesAndTheRest()} {
		for name, f := range forms {
			t.Run(name, func(t *testing.T) {
				before := closed.agent.Calls(f.method)
				msg := dialClient(t, closed.address).fails(codes.PermissionDenied, f.method, f.req)
				if closed.agent.Calls(f.method) != before {
					t.Error("it reached the agent")
				}
				_, word, found := strings.Cut(msg, `[gate] allow = ["`)
				word, _, _ = strings.Cut(word, `"]`)
				if found != (f.allow != "") || word != f.allow {
					t.Fatalf("denial %q, want one with the word %q", msg, f.allow)
				}
				if f.allow == "" {
					return
				}
				if err := gate.CheckAllow([]string{word}); err != nil {
					t.Fatalf("the word that the denial names: %v", err)
				}
				open := newRig(t, rigOptions{policy: allowAll, allow: []string{word}})
				if _, err := dialClient(t, open.address).do(t.Context(), f.method, f.req); err != nil && strings.Contains(err.Error(), "blocked by policy") {
					t.Errorf("with the word: %v", err)
				}
			})
		}
	}
}

func TestPathsThroughALinkOfTheImageAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	c := newRig(t, rigOptions{policy: allowAll}).client()
	c.must("CreateSandbox", sandbox())
	for name, f := range map[string]form{
		"the link itself": bindOf(dir+"/link", ""),
		"a path below it": bindOf(dir+"/link/x/y", ""),
		"target of a copied link": {"CopyFile", &agentpb.CopyFileRequest{
			Path: shared + "l", FileMode: 0o120777, Data: []byte(dir + "/link/x")}, ""},
		"mount point": storageOf(&agentpb.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: dir + "/link"}),
	} {
		t.Run(name, func(t *testing.T) {
			if msg := c.fails(codes.PermissionDenied, f.method, f.req); !strings.Contains(msg, "leads through the link "+dir+"/link") {
				t.Errorf("message %q", msg)
			}
		})
	}
	real := bindOf(dir+"/real/x", "")
	c.must(real.method, real.req)
}

func TestTheGateItselfCannotBeAllowed(t *testing.T) {
	for _, word := range []string{"/run/portcullis", "/run/portcullis/x", "/dev/tpm0", "/etc/kata-opa", "/var/run/portcullis", "proc", "/proc/", "hook", "", "mount:"} {
		if err := gate.CheckAllow([]string{word}); err == nil {
			t.Errorf("%q is taken", word)
		}
	}
	r := newRig(t, rigOptions{policy: allowAll, allow: []string{"/run", "/", "/etc"}})
	for _, source := range []string{"/run", "/", "/etc", "/run/portcullis"} {
		f := bindOf(source, "")
		r.client().fails(codes.PermissionDenied, f.method, f.req)
	}
}
