// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/internal/emulator/cri"
)

// security is a container's security context over the pod's, the user being the image's where neither names one.
func (k *Kubelet) security(c *corev1.Container, image images.Config) (cri.Security, error) {
	pod, own := k.pod.Spec.SecurityContext, c.SecurityContext
	out := cri.Security{
		Privileged: isTrue(own.Privileged), RunAsGroup: firstOf(own.RunAsGroup, pod.RunAsGroup),
		RunAsUser:  firstOf(own.RunAsUser, pod.RunAsUser),
		NoNewPrivs: own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation,
		StrictGroups: pod.SupplementalGroupsPolicy != nil &&
			*pod.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict,
	}
	unmasked := own.ProcMount != nil && *own.ProcMount == corev1.UnmaskedProcMount
	if !unmasked && !out.Privileged {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	if own.Capabilities != nil {
		out.AddCapabilities, out.DropCapabilities = names(own.Capabilities.Add), names(own.Capabilities.Drop)
	}
	if pod.FSGroup != nil {
		out.SupplementalGroups = append(out.SupplementalGroups, *pod.FSGroup)
	}
	out.SupplementalGroups = append(out.SupplementalGroups, pod.SupplementalGroups...)
	if out.RunAsUser == nil {
		out.RunAsUser, out.RunAsUserName = imageUser(image.User)
	}
	nonRoot := pod.RunAsNonRoot
	if own.RunAsNonRoot != nil {
		nonRoot = own.RunAsNonRoot
	}
	if isTrue(nonRoot) && (out.RunAsUser == nil || *out.RunAsUser == 0) {
		return out, fmt.Errorf("%w: %s runs as root or as a user whose number is not known, and runAsNonRoot is set", ErrRefused, c.Name)
	}
	return out, nil
}

func firstOf(values ...*int64) *int64 {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

func names(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		out = append(out, string(c))
	}
	return out
}

// imageUser is the user of an image, root if it names none. Its group is not passed on.
func imageUser(user string) (*int64, string) {
	name, _, _ := strings.Cut(user, ":")
	if name == "" {
		return new(int64), ""
	}
	if uid, err := strconv.ParseInt(name, 10, 64); err == nil {
		return &uid, ""
	}
	return nil, name
}

func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
