// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/internal/emulator/cri"
)

func withPrefix(names string) []string {
	out := strings.Fields(names)
	for i := range out {
		out[i] = "CAP_" + out[i]
	}
	return out
}

func defaultCapabilities() []string {
	return withPrefix(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
		NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`)
}

// AllCapabilities are those that Linux 5.9 and later knows, by number.
func AllCapabilities() []string {
	return withPrefix(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
		SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
		SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
}

func (r *Runtime) all() []string {
	if r.Capabilities != nil {
		return slices.Clone(r.Capabilities)
	}
	return AllCapabilities()
}

// capabilities are the usual ones with those added and dropped: first all that are named by ALL, then the others.
func (r *Runtime) capabilities(s cri.Security) []string {
	if s.Privileged {
		return r.all()
	}
	out := defaultCapabilities()
	isAll := func(name string) bool { return strings.EqualFold(name, "ALL") }
	if slices.ContainsFunc(s.AddCapabilities, isAll) {
		out = r.all()
	}
	if slices.ContainsFunc(s.DropCapabilities, isAll) {
		out = nil
	}
	for _, name := range s.AddCapabilities {
		if c := capability(name); !isAll(name) && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, name := range s.DropCapabilities {
		out = slices.DeleteFunc(out, func(c string) bool { return c == capability(name) })
	}
	return out
}

func capability(name string) string {
	return "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
}

func sets(names []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Effective: slices.Clone(names), Permitted: slices.Clone(names)}
}
