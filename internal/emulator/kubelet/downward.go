// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"portcullis/internal/emulator/controller"
)

const rootCA = controller.RootCA

// field is the value of a field of the pod.
func (k *Kubelet) field(at string) (string, error) {
	if object, key, ok := strings.Cut(strings.TrimSuffix(at, "']"), "['"); ok {
		switch object {
		case "metadata.labels":
			return k.pod.Labels[key], nil
		case "metadata.annotations":
			return k.pod.Annotations[key], nil
		}
	}
	switch at {
	case "metadata.name":
		return k.pod.Name, nil
	case "metadata.namespace":
		return k.pod.Namespace, nil
	case "metadata.uid":
		return string(k.pod.UID), nil
	case "metadata.labels":
		return lines(k.pod.Labels), nil
	case "metadata.annotations":
		return lines(k.annotations()), nil
	case "spec.nodeName":
		return k.node.Name, nil
	case "spec.serviceAccountName":
		return k.pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return k.node.IP, nil
	case "status.podIP", "status.podIPs":
		return k.podIP(), nil
	}
	return "", fmt.Errorf("%w: field %s", ErrRefused, at)
}

// annotations are the pod's, with those that the kubelet keeps for itself.
func (k *Kubelet) annotations() map[string]string {
	out := maps.Clone(k.pod.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	out["kubernetes.io/config.seen"] = k.node.Time.Format("2006-01-02T15:04:05.000000000Z07:00")
	out["kubernetes.io/config.source"] = "api"
	return out
}

func lines(m map[string]string) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(out, "\n")
}

// resourceField is a limit or request, divided and rounded up. What is unlimited is what the node has.
func (k *Kubelet) resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" {
		all := slices.Concat(k.pod.Spec.InitContainers, k.pod.Spec.Containers)
		i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == ref.ContainerName })
		if i < 0 {
			return "", fmt.Errorf("%w: no container %s", ErrRefused, ref.ContainerName)
		}
		c = &all[i]
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	quantity := list[corev1.ResourceName(name)]
	if kind == "limits" && quantity.IsZero() {
		quantity = k.allocatable(name)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value := float64(quantity.Value()) / float64(divisor.Value())
	if name == "cpu" {
		value = float64(quantity.MilliValue()) / float64(divisor.MilliValue())
	}
	return strconv.FormatInt(int64(math.Ceil(value)), 10), nil
}

func (k *Kubelet) allocatable(name string) resource.Quantity {
	switch name {
	case "cpu":
		return *resource.NewQuantity(k.node.CPUs, resource.DecimalSI)
	case "memory":
		return *resource.NewQuantity(k.node.Memory, resource.BinarySI)
	case "ephemeral-storage":
		return *resource.NewQuantity(k.node.Storage, resource.BinarySI)
	}
	return resource.Quantity{}
}
