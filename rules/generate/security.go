// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/rules/policydata"
)

// security sets what a container's security context says beside the user.
func (b *builder) security(c placed, out *policydata.Container) error {
	own := c.security()
	if key := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name; own.AppArmorProfile == nil &&
		strings.HasPrefix(b.pod.owner.template.Annotations[key], corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		return b.pod.fault("metadata.annotations["+key+"]", nodesProfile)
	}
	out.ReadonlyRoot = isTrue(own.ReadOnlyRootFilesystem)
	out.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
	out.Capabilities, out.Paths = defaultSet, defaultSet
	if isTrue(own.Privileged) {
		if out.NoNewPrivs {
			return b.pod.fault(c.field+".securityContext.allowPrivilegeEscalation", "cannot be false in a privileged container")
		}
		b.policy.Common.Capabilities[privilegedSet] = capabilities(b.settings().Generate.PrivilegedCapabilities.Names)
		out.Capabilities, out.Paths = privilegedSet, privilegedSet
		return b.profiles(c.field+".securityContext", own.AppArmorProfile, own.SeccompProfile)
	}
	if own.ProcMount != nil && *own.ProcMount == corev1.UnmaskedProcMount {
		out.Paths = privilegedSet
	}
	if own.Capabilities != nil {
		set, err := b.capabilities(own.Capabilities, c.field+".securityContext.capabilities")
		if err != nil {
			return err
		}
		out.Capabilities = b.capabilitySet(set)
	}
	return b.profiles(c.field+".securityContext", own.AppArmorProfile, own.SeccompProfile)
}

// capabilities adds to and then drops from the platform's default.
func (b *builder) capabilities(want *corev1.Capabilities, field string) ([]string, error) {
	all := b.settings().Generate.PrivilegedCapabilities.Names
	isAll := func(c corev1.Capability) bool { return strings.EqualFold(string(c), "ALL") }
	names := slices.Clone(b.settings().Common.Capabilities[defaultSet].Bounding)
	if slices.ContainsFunc(want.Add, isAll) {
		names = slices.Clone(all)
	}
	if slices.ContainsFunc(want.Drop, isAll) {
		names = nil
	}
	for i, c := range slices.Concat(want.Add, want.Drop) {
		if isAll(c) {
			continue
		}
		name := "CAP_" + strings.ToUpper(string(c))
		if !slices.Contains(all, name) {
			return nil, b.pod.fault(field, fmt.Sprintf("has %q, which is no capability; names are written without CAP_", c))
		}
		if i < len(want.Add) && !slices.Contains(names, name) {
			names = append(names, name)
		}
		if i >= len(want.Add) {
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		}
	}
	return names, nil
}

// capabilitySet returns the name of a set in Common, which it adds if need be.
func (b *builder) capabilitySet(names []string) string {
	set := capabilities(names)
	if slices.Equal(set.Bounding, capabilities(b.settings().Common.Capabilities[defaultSet].Bounding).Bounding) {
		return defaultSet
	}
	key := "none"
	if len(set.Bounding) > 0 {
		short := make([]string, len(set.Bounding))
		for i, name := range set.Bounding {
			short[i] = strings.ToLower(strings.TrimPrefix(name, "CAP_"))
		}
		key = strings.Join(short, "+")
	}
	b.policy.Common.Capabilities[key] = set
	return key
}

// capabilities are those of a process that may use all of names.
func capabilities(names []string) policydata.Capabilities {
	sorted := func() []string {
		list := append([]string{}, names...)
		slices.Sort(list)
		return list
	}
	return policydata.Capabilities{
		Ambient: []string{}, Bounding: sorted(), Effective: sorted(), Inheritable: []string{}, Permitted: sorted(),
	}
}

const nodesProfile = "names a profile of the node, which the guest does not have"

// profiles looks at profiles that the node would load and the guest does not.
func (b *builder) profiles(field string, armor *corev1.AppArmorProfile, seccomp *corev1.SeccompProfile) error {
	if armor != nil && armor.Type == corev1.AppArmorProfileTypeLocalhost {
		return b.pod.fault(field+".appArmorProfile", nodesProfile)
	}
	if seccomp != nil && seccomp.Type == corev1.SeccompProfileTypeLocalhost {
		b.warn(field+".seccompProfile", "names a profile of the node, which has no effect in the guest")
	}
	return nil
}

// podSecurity looks at the pod's security context.
func (b *builder) podSecurity() error {
	pod := b.pod.security()
	return b.profiles("spec.securityContext", pod.AppArmorProfile, pod.SeccompProfile)
}

// sysctls sets the kernel parameters of a container. The pod's belong to the
// sandbox container alone: no runtime sends them with another.
func (b *builder) sysctls(out *policydata.Container, defaults map[string]string) {
	for key, value := range defaults {
		put(&out.Sysctl.Optional, key, value)
	}
	if out.Type != policydata.TypeSandbox {
		return
	}
	for _, s := range b.pod.security().Sysctls {
		key := strings.ReplaceAll(s.Name, "/", ".") // Kubernetes accepts slashes for dots
		put(&out.Sysctl.Fixed, key, s.Value)
		delete(out.Sysctl.Optional, key)
	}
}

// privileged reports whether any container of the pod is.
func (b *builder) privileged() bool {
	return slices.ContainsFunc(b.pod.containers(), func(c placed) bool { return isTrue(c.security().Privileged) })
}
