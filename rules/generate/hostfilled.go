// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/rules/policydata"
)

// imageVolumes adds the directories that the image declares as volumes. The runtime makes one of the host for each that the
// manifest mounts nothing at; in the guest it stays empty.
func (b *builder) imageVolumes(c placed, volumes []string, out *policydata.Container) error {
	for _, volume := range volumes {
		destination := path.Clean("/" + volume)
		mounted := func(vm corev1.VolumeMount) bool { return path.Clean("/"+vm.MountPath) == destination }
		if slices.ContainsFunc(c.VolumeMounts, mounted) {
			continue
		}
		if b.hashed() && systemPath(destination) {
			return b.pod.fault(c.field+".image", fmt.Sprintf("declares a volume at %s, and the host would fill a directory of the system; "+
				"mount a volume of the manifest there, such as an emptyDir, or use another image", destination))
		}
		b.place(out, destination, b.empty(b.shape(volumeShared, "", volume).Mount))
	}
	return nil
}

// empty makes of a mount one that stays empty but for what the container itself writes, where copied files are bound.
func (b *builder) empty(m policydata.Mount) policydata.Mount {
	if b.hashed() {
		m.Contents = &policydata.Contents{Files: map[string]policydata.File{}}
	}
	return m
}

// copiedDirs says which directories may stand for the guest's own where nothing is shared with the host: one for the pod, of an
// emptyDir that Kata copies; and as it did before 4.1 one for each container, of an emptyDir that the pod mounts once, at a place
// whose name the host may copy nothing else to. The copy of an empty directory is empty, and stays so but for what containers write.
func (b *builder) copiedDirs() {
	if !b.policy.SharesNothing() {
		return
	}
	uses, taken := map[string]int{}, map[string]bool{}
	for _, c := range b.policy.Containers {
		for _, m := range c.Mounts {
			if m.From == policydata.MountShared {
				taken[m.Source] = true
			} else if m.From == policydata.MountLocal {
				uses[m.Source]++
			}
		}
	}
	const random = "-[a-z0-9]{16}-"
	for _, c := range b.policy.Containers {
		for destination, m := range c.Mounts {
			if m.From != policydata.MountLocal {
				continue
			}
			names := "sandbox" + random + regexp.QuoteMeta(m.Source)
			if base := path.Base(destination); uses[m.Source] == 1 && !taken[base] {
				names += "|" + policydata.ContainerID + random + regexp.QuoteMeta(base)
			}
			m.Copied = "^" + regexp.QuoteMeta(b.policy.Common.SharedDirs[0]) + "/(" + names + ")$"
			c.Mounts[destination] = m
		}
	}
}

// systemPath reports whether a path is the root, or one of the system's own directories or in one. What packages keep below
// /usr/share, and what is installed by hand below /usr/local but not on a search path, is none.
func systemPath(p string) bool {
	if p == "/" {
		return true
	}
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	if !slices.Contains([]string{"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"}, parts[0]) {
		return false
	}
	switch {
	case len(parts) < 2:
		return true
	case parts[0] == "run":
		return false
	case parts[0] == "usr" && len(parts) > 2:
		return parts[1] != "share" && (parts[1] != "local" || slices.Contains([]string{"bin", "etc", "lib", "lib64", "libexec", "sbin"}, parts[2]))
	}
	return true
}

// checkNesting refuses what is bound or encrypted below what the host fills: the host could put a link at its mount point,
// which the agent follows.
func (b *builder) checkNesting(c placed, out *policydata.Container) error {
	if !b.hashed() {
		return nil
	}
	for i, vm := range c.VolumeMounts {
		inner := path.Clean("/" + vm.MountPath)
		if hostFilled(out.Mounts[vm.MountPath]) {
			continue
		}
		for _, outer := range slices.Sorted(maps.Keys(out.Mounts)) {
			if hostFilled(out.Mounts[outer]) && strings.HasPrefix(inner, path.Clean(outer)+"/") {
				return b.pod.fault(fmt.Sprintf("%s.volumeMounts[%d].mountPath", c.field, i), fmt.Sprintf("is %s, below %s, which the host fills: "+
					"it could lead the mount elsewhere by a link; mount it outside of %s", inner, outer, outer))
			}
		}
	}
	return nil
}

// hostFilled reports whether the host chooses what a mount holds.
func hostFilled(m policydata.Mount) bool {
	return m.From == policydata.MountShared && (m.Contents == nil || m.Contents.Open)
}
