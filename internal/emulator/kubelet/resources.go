// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/internal/emulator/cri"
)

// Period is the CPU period, microseconds.
const period = 100_000

// resources turns requests and limits into shares, quota and memory limit.
func resources(requests, limits corev1.ResourceList) cri.Resources {
	out := cri.Resources{Shares: max(uint64(requests.Cpu().MilliValue())*1024/1000, 2), Period: period}
	if milli := limits.Cpu().MilliValue(); milli > 0 {
		out.Quota = max(milli*period/1000, 1000)
	}
	if out.Memory = limits.Memory().Value(); out.Memory > 0 {
		out.Swap = out.Memory
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if size, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); huge {
			limit := limits[name]
			out.Huge = append(out.Huge, cri.HugePages{Size: strings.TrimSuffix(size, "i") + "B", Limit: uint64(limit.Value())})
		}
	}
	return out
}

// limited are the requests and limits of a container: those of the pod where it has none. That was seen with a single container.
func (k *Kubelet) limited(c *corev1.Container) (requests, limits corev1.ResourceList) {
	requests, limits = maps.Clone(c.Resources.Requests), maps.Clone(c.Resources.Limits)
	r := k.pod.Spec.Resources
	if r == nil {
		return requests, limits
	}
	if len(limits) == 0 {
		limits = r.Limits
	}
	if len(requests) == 0 {
		requests = r.Requests
	}
	return requests, limits
}

// sandboxResources are what all containers of the pod may use at one time.
func (k *Kubelet) sandboxResources() cri.Resources {
	requests := k.total(func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
	limits := k.total(func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits })
	return resources(requests, limits)
}

// total adds up over the containers that run together, and takes an init
// container's where it is more, with the sidecars before it.
func (k *Kubelet) total(of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	total, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range k.pod.Spec.Containers {
		add(total, of(&k.pod.Spec.Containers[i]))
	}
	for i := range k.pod.Spec.InitContainers {
		c := &k.pod.Spec.InitContainers[i]
		if Sidecar(c) {
			add(total, of(c))
			add(sidecars, of(c))
			raise(peak, sidecars)
			continue
		}
		now := sidecars.DeepCopy()
		add(now, of(c))
		raise(peak, now)
	}
	raise(total, peak)
	if r := k.pod.Spec.Resources; r != nil { // the pod's own limits stand for the sum
		maps.Copy(total, of(&corev1.Container{Resources: *r}))
	}
	return total
}

// Sidecar is true for an init container that stays while the pod runs.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func add(to, more corev1.ResourceList) {
	for name, quantity := range more {
		sum := to[name]
		sum.Add(quantity)
		to[name] = sum
	}
}

func raise(to, other corev1.ResourceList) {
	for name, quantity := range other {
		if has := to[name]; quantity.Cmp(has) > 0 {
			to[name] = quantity
		}
	}
}

// qos is the pod's class: "", "burstable" or "besteffort" as its cgroup names it.
func (k *Kubelet) qos() string {
	guaranteed, any := true, false
	all := slices.Concat(k.pod.Spec.InitContainers, k.pod.Spec.Containers)
	if r := k.pod.Spec.Resources; r != nil {
		all = []corev1.Container{{Resources: *r}}
	}
	for _, c := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			any = any || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && request.Cmp(limit) == 0
		}
	}
	switch {
	case !any:
		return "besteffort"
	case guaranteed:
		return ""
	}
	return "burstable"
}

func (k *Kubelet) cgroup() string {
	class := k.qos()
	if class != "" {
		class += "/"
	}
	return "/kubepods/" + class + "pod" + string(k.pod.UID)
}

// oomScore is how soon the kernel kills the container's processes.
func (k *Kubelet) oomScore(c *corev1.Container) int64 {
	switch k.qos() {
	case "":
		return -997
	case "besteffort":
		return 1000
	}
	if score := 1000 - 1000*c.Resources.Requests.Memory().Value()/k.node.Memory; score < 1000 {
		return max(score, 3)
	}
	return 999
}
