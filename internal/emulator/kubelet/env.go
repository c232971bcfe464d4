// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/internal/emulator/cri"
	"portcullis/internal/emulator/node"
)

// env returns the variables that the kubelet passes: the pod's own, then those of services. The kubelet gives each part in an
// order of its own every time; here they are sorted.
func (k *Kubelet) env(c *corev1.Container) ([]cri.EnvVar, error) {
	values, err := k.envFrom(c)
	if err != nil {
		return nil, err
	}
	services := k.node.ServiceVariables(k.pod.Spec.EnableServiceLinks == nil || *k.pod.Spec.EnableServiceLinks)
	for _, v := range c.Env {
		value, ok, err := v.Value, true, error(nil)
		switch {
		case v.Value != "":
			known := maps.Clone(services)
			maps.Copy(known, values)
			value = expand(v.Value, known)
		case v.ValueFrom != nil:
			value, ok, err = k.valueFrom(c, v.ValueFrom)
		}
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if ok {
			values[v.Name] = value
		}
	}
	var out []cri.EnvVar
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, cri.EnvVar{Name: name, Value: values[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, ok := values[name]; !ok {
			out = append(out, cri.EnvVar{Name: name, Value: services[name]})
		}
	}
	return out, nil
}

func (k *Kubelet) envFrom(c *corev1.Container) (map[string]string, error) {
	out := map[string]string{}
	for _, from := range c.EnvFrom {
		var data map[string][]byte
		var err error
		switch {
		case from.ConfigMapRef != nil:
			data, err = k.configMap(from.ConfigMapRef.Name, isTrue(from.ConfigMapRef.Optional))
			if m, ok := k.pod.Objects.ConfigMaps.In(k.pod.Namespace, from.ConfigMapRef.Name); ok {
				data = bytesOf(m.Data) // binary data makes no variables
			}
		case from.SecretRef != nil:
			data, err = k.secret(from.SecretRef.Name, isTrue(from.SecretRef.Optional))
		}
		if err != nil {
			return nil, err
		}
		for name, value := range data {
			if !strings.Contains(name, "=") { // no name of a variable
				out[from.Prefix+name] = string(value)
			}
		}
	}
	return out, nil
}

// valueFrom returns a value, and false for an optional one that is absent.
func (k *Kubelet) valueFrom(c *corev1.Container, from *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := k.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := k.resourceField(c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := k.configMap(ref.Name, isTrue(ref.Optional))
		return pick(data, ref.Key, isTrue(ref.Optional), "ConfigMap "+ref.Name, err)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := k.secret(ref.Name, isTrue(ref.Optional))
		return pick(data, ref.Key, isTrue(ref.Optional), "Secret "+ref.Name, err)
	}
	return "", false, fmt.Errorf("%w: a source of variables that is not known", ErrRefused)
}

func pick(data map[string][]byte, key string, optional bool, object string, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, ok := data[key]
	if every, all := data[node.EveryKey]; all && !ok {
		value, ok = every, true
	}
	if !ok && !optional {
		return "", false, fmt.Errorf("%w: %s has no key %s", ErrRefused, object, key)
	}
	return string(value), ok, nil
}

// configMap returns the data of a ConfigMap, none for an optional one that is absent.
func (k *Kubelet) configMap(name string, optional bool) (map[string][]byte, error) {
	m, ok := k.pod.Objects.ConfigMaps.In(k.pod.Namespace, name)
	switch {
	case ok:
		data := bytesOf(m.Data)
		maps.Copy(data, m.BinaryData)
		return data, nil
	case name == rootCA:
		return map[string][]byte{"ca.crt": k.node.ClusterCA}, nil
	case optional:
		return nil, nil
	case k.node.Unknown != nil:
		return k.node.Unknown("ConfigMap", name), nil
	}
	return nil, fmt.Errorf("%w: ConfigMap %s is not in the manifest", ErrRefused, name)
}

func (k *Kubelet) secret(name string, optional bool) (map[string][]byte, error) {
	s, ok := k.pod.Objects.Secrets.In(k.pod.Namespace, name)
	if !ok {
		switch {
		case optional:
			return nil, nil
		case k.node.Unknown != nil:
			return k.node.Unknown("Secret", name), nil
		}
		return nil, fmt.Errorf("%w: Secret %s is not in the manifest", ErrRefused, name)
	}
	data := maps.Clone(s.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	maps.Copy(data, bytesOf(s.StringData))
	return data, nil
}

func bytesOf(texts map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for name, text := range texts {
		out[name] = []byte(text)
	}
	return out
}
