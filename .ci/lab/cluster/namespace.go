// SPDX-License-Identifier: Apache-2.0

// Package cluster runs one containerd, one kubelet and their API server in namespaces of their own, with a root of their own: the
// machine's files below, and everything that is written above them in memory or in the lab's folder.
package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Fixed names of the machine that the recordings are made on.
const (
	NodeName = "node1"
	NodeIP   = "192.0.2.10"
	Dir      = "/lab" // the lab's folder, seen from inside

	StaticPods = "/etc/lab-static" // the kubelet's folder of static pods
)

// Inside runs the program again, with these arguments, as the first process of new namespaces.
func Inside(args ...string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd.Run()
}

// Enter makes the new root and network; work is the lab's folder outside. It is called by the first process of the namespaces.
func Enter(work string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := overlay(work)
	if err != nil {
		return err
	}
	if err := fill(root, work); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to the new root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// As on a systemd machine: mounts that a pod propagates need it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := unix.Sethostname([]byte(NodeName)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := network(); err != nil {
		return fmt.Errorf("set up the network: %w", err)
	}
	// What a container with all capabilities gets depends on containerd's own: those of a machine that lacks this one, as virtual
	// machines may.
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil {
		return fmt.Errorf("drop CAP_SYS_RESOURCE: %w", err)
	}
	return pretend()
}

// overlay needs its upper folder on another file system than the root: a tmpfs.
func overlay(work string) (string, error) {
	base := filepath.Join(work, "fs")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=755"); err != nil {
		return "", fmt.Errorf("mount %s: %w", base, err)
	}
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			return "", err
		}
	}
	root := filepath.Join(base, "root")
	options := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", base, base)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount the overlay on %s: %w", root, err)
	}
	return root, nil
}

func fill(root, work string) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
	}
	mounts := []mount{
		{work, Dir, "", unix.MS_BIND},
		{filepath.Join(work, "containerd"), "/var/lib/containerd", "", unix.MS_BIND},
		{filepath.Join(work, "kubelet"), "/var/lib/kubelet", "", unix.MS_BIND},
		{"/sys", "/sys", "", unix.MS_BIND | unix.MS_REC},
		{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", "/var/log", "tmpfs", 0},
	}
	for _, m := range mounts {
		target := filepath.Join(root, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if m.flags&unix.MS_BIND != 0 && strings.HasPrefix(m.source, work) {
			if err := os.MkdirAll(m.source, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, target, err)
		}
	}
	return nil
}

// network gives the node its address: nothing leaves the machine.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	address, err := netlink.ParseAddr(NodeIP + "/32")
	if err != nil {
		return err
	}
	return netlink.AddrAdd(lo, address)
}

// pretend hides what differs between machines and would show in specifications (the memory, by which the kubelet reckons OOM scores),
// and keeps the kubelet from setting what belongs to the machine: these sysctls are files of the lab's.
func pretend() error {
	const gib = 1 << 20 // in KiB
	meminfo := fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\nSwapTotal:      0 kB\nSwapFree:       0 kB\n", 16*gib, 12*gib, 12*gib)
	files := map[string]string{
		"/proc/meminfo":                       meminfo,
		"/proc/sys/vm/overcommit_memory":      "1\n",
		"/proc/sys/vm/panic_on_oom":           "0\n",
		"/proc/sys/kernel/panic":              "10\n",
		"/proc/sys/kernel/panic_on_oops":      "1\n",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000\n",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
	}
	for name, content := range files {
		if _, err := os.Stat(name); err != nil {
			continue // a kernel without keys
		}
		file := filepath.Join("/run/lab-pretend", strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", "-"))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", file, name, err)
		}
	}
	return nil
}

// Reap runs the driver as a child and collects every process whose parent has gone, as the first process of a namespace has to.
func Reap(args ...string) (int, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for the driver: %w", err)
		}
		if pid == cmd.Process.Pid {
			return status.ExitStatus(), nil
		}
	}
}
