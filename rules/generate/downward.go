// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// controllerKeys are labels and annotations that controllers add to pods, with the patterns of their values.
var controllerKeys = map[string]string{
	"pod-template-hash":                        suffixClass + "{1,10}",
	"controller-revision-hash":                 dnsPattern,
	"pod-template-generation":                  numberPattern,
	"apps.kubernetes.io/pod-index":             numberPattern,
	"statefulset.kubernetes.io/pod-name":       dnsPattern,
	"batch.kubernetes.io/controller-uid":       uidPattern,
	"controller-uid":                           uidPattern,
	"batch.kubernetes.io/job-name":             dnsPattern,
	"job-name":                                 dnsPattern,
	"batch.kubernetes.io/job-completion-index": numberPattern,
}

// fieldRef returns what a field of the pod will be.
func (b *builder) fieldRef(path, field string) (value, error) {
	switch path {
	case "metadata.name":
		if name := b.pod.names.text(); name != "" {
			return text(name), nil
		}
		return placeholder(sandboxName), nil
	case "metadata.namespace":
		if namespace := b.pod.namespace(); namespace != "" {
			return text(namespace), nil
		}
		return placeholder(sandboxNamespace), nil
	case "metadata.uid":
		return placeholder(sandboxUID), nil
	case "spec.nodeName":
		if node := b.pod.owner.spec.NodeName; node != "" {
			return text(node), nil
		}
		return matching(dnsPattern), nil
	case "spec.serviceAccountName":
		return text(b.pod.serviceAccount()), nil
	case "status.hostIP", "status.podIP":
		return matching(addressPattern), nil
	case "status.hostIPs", "status.podIPs":
		return matching(addressPattern + "(?:," + addressPattern + ")?"), nil
	}
	for prefix, values := range map[string]map[string]string{
		"metadata.labels[":      b.pod.owner.template.Labels,
		"metadata.annotations[": b.pod.owner.template.Annotations,
	} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return b.mapRef(rest, values, field)
		}
	}
	return nil, b.pod.fault(field, fmt.Sprintf("is %s, which Kubernetes does not offer here", path))
}

// mapRef returns the value at 'key'], which is all of rest.
func (b *builder) mapRef(rest string, values map[string]string, field string) (value, error) {
	key := strings.TrimSuffix(rest, "]")
	if key == rest || len(key) < 2 || key[0] != key[len(key)-1] || key[0] != '\'' && key[0] != '"' {
		return nil, b.pod.fault(field, "has no key in quotes, as in metadata.labels['app']")
	}
	key = key[1 : len(key)-1]
	if found, ok := values[key]; ok {
		return text(found), nil
	}
	if pattern, ok := controllerKeys[key]; ok {
		return matching(pattern), nil
	}
	// The kubelet takes a key that is not there as empty.
	return text(""), nil
}

// resourceRef returns a limit or request as the kubelet writes it, or any number where the node decides.
func (b *builder) resourceRef(c placed, ref *corev1.ResourceFieldSelector, field string) (value, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		other, ok := b.container(ref.ContainerName)
		if !ok {
			return nil, b.pod.fault(field+".containerName", "names no container of the pod")
		}
		c = other
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	if kind != "limits" && kind != "requests" || name == "" {
		return nil, b.pod.fault(field+".resource", "is neither limits.NAME nor requests.NAME")
	}
	resourceName := corev1.ResourceName(name)
	amount, known := c.Resources.Limits[resourceName]
	if request, ok := c.Resources.Requests[resourceName]; ok && kind == "requests" {
		amount, known = request, true
	}
	if b.pod.owner.spec.Resources != nil || !known && kind == "limits" {
		return matching(numberPattern), nil
	}
	divided, err := divide(amount, ref.Divisor, resourceName == corev1.ResourceCPU)
	if err != nil {
		return nil, b.pod.fault(field+".divisor", err.Error())
	}
	return text(divided), nil
}

// divide rounds up, as the kubelet does.
func divide(amount, divisor resource.Quantity, cpu bool) (string, error) {
	if divisor.Sign() < 0 {
		return "", fmt.Errorf("is negative")
	}
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if cpu {
		return strconv.FormatInt(int64(math.Ceil(float64(amount.MilliValue())/float64(divisor.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(amount.Value())/float64(divisor.Value()))), 10), nil
}

// container finds a container of the pod by name.
func (b *builder) container(name string) (placed, bool) {
	for _, c := range b.pod.containers() {
		if c.Name == name {
			return c, true
		}
	}
	return placed{}, false
}
