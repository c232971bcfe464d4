// SPDX-License-Identifier: Apache-2.0

// Package containerd makes of a kubelet's configurations the specifications that
// containerd writes for an OCI runtime, by containerd's release.
package containerd

import "fmt"

// Release is a line of containerd's releases whose specifications were recorded.
type Release string

// Values of Release.
const (
	V1_6 Release = "1.6"
	V1_7 Release = "1.7"
	V2_2 Release = "2.2"
	V2_4 Release = "2.4"
)

// Releases returns all releases, oldest first.
func Releases() []Release { return []Release{V1_6, V1_7, V2_2, V2_4} }

// ParseRelease reads the name of a release.
func ParseRelease(s string) (Release, error) {
	for _, r := range Releases() {
		if s == string(r) {
			return r, nil
		}
	}
	return "", fmt.Errorf("containerd %q is not emulated: one of %v", s, Releases())
}

func (r Release) before2() bool { return r == V1_6 || r == V1_7 }

func (r Release) ociVersion() string {
	return map[Release]string{V1_6: "1.0.2-dev", V1_7: "1.1.0", V2_2: "1.3.0", V2_4: "1.3.0"}[r]
}

// maskedOfSandbox are the paths hidden from the pause container.
func (r Release) maskedOfSandbox() []string {
	out := []string{"/proc/acpi", "/proc/asound"}
	if r == V2_4 {
		out = append(out, "/proc/interrupts")
	}
	out = append(out, "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware")
	if r != V1_6 {
		out = append(out, "/sys/devices/virtual/powercap")
	}
	return append(out, "/proc/scsi")
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// sandboxSysctls are set for every pod with a network of its own.
func (r Release) sandboxSysctls() map[string]string {
	if r.before2() {
		return map[string]string{}
	}
	return map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
}
