// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/rules/policydata"
)

// Configs are the ConfigMaps and Secrets that pods may refer to.
type Configs struct {
	maps, secrets map[configKey]config
}

type configKey struct{ namespace, name string }

// config is the content of a ConfigMap or Secret. text is what environment variables can take, all is what volumes hold.
type config struct{ text, all map[string][]byte }

// Add takes the ConfigMaps and Secrets of a manifest. The same name twice with different content is an error.
func (c *Configs) Add(m *Manifest) error {
	if c.maps == nil {
		c.maps, c.secrets = map[configKey]config{}, map[configKey]config{}
	}
	for _, found := range m.configMaps {
		content := config{text: map[string][]byte{}, all: map[string][]byte{}}
		for key, value := range found.Data {
			content.text[key], content.all[key] = []byte(value), []byte(value)
		}
		maps.Copy(content.all, found.BinaryData)
		if err := add(c.maps, configKey{found.Namespace, found.Name}, content); err != nil {
			return &Finding{File: m.file, Text: "ConfigMap " + err.Error()}
		}
	}
	for _, found := range m.secrets {
		content := config{all: map[string][]byte{}}
		maps.Copy(content.all, found.Data)
		for key, value := range found.StringData {
			content.all[key] = []byte(value)
		}
		content.text = content.all
		if err := add(c.secrets, configKey{found.Namespace, found.Name}, content); err != nil {
			return &Finding{File: m.file, Text: "Secret " + err.Error()}
		}
	}
	return nil
}

func add(to map[configKey]config, key configKey, content config) error {
	if key.name == "" {
		return fmt.Errorf("has no metadata.name")
	}
	if old, twice := to[key]; twice && !maps.EqualFunc(old.all, content.all, bytes.Equal) {
		return fmt.Errorf("%s is given twice with different content", key.name)
	}
	to[key] = content
	return nil
}

// find finds a ConfigMap or Secret for a pod of a namespace. An object or pod without a namespace is in the one that both will be
// applied to.
func (c *Configs) find(kind, namespace, name string) (config, bool) {
	in := c.maps
	if kind == "Secret" {
		in = c.secrets
	}
	if found, ok := in[configKey{namespace, name}]; ok {
		return found, true
	}
	if namespace != "" {
		found, ok := in[configKey{"", name}]
		return found, ok
	}
	var only config
	count := 0
	for key, found := range in {
		if key.name == name {
			only = found
			count++
		}
	}
	return only, count == 1
}

// reference is one use of a ConfigMap or Secret.
type reference struct {
	kind, name string // kind is "ConfigMap" or "Secret"
	optional   bool
	field      string // for messages
}

// resolve finds what a reference names. It returns false for an optional object that was not given.
func (b *builder) resolve(r reference) (config, bool, error) {
	found, ok := b.generator.configs.find(r.kind, b.pod.namespace(), r.name)
	switch {
	case ok:
		return found, true, nil
	case r.optional:
		b.warn(r.field, fmt.Sprintf("%s %s was not given and is optional; the policy takes it as absent", r.kind, r.name))
		return config{}, false, nil
	}
	return config{}, false, b.pod.fault(r.field,
		fmt.Sprintf("refers to %s %s, which was not given; add its manifest with --config-file", r.kind, r.name))
}

func isTrue(b *bool) bool { return b != nil && *b }

// security returns the pod's security context, an empty one when it has none.
func (p *Pod) security() *corev1.PodSecurityContext {
	return cmp.Or(p.owner.spec.SecurityContext, &corev1.PodSecurityContext{})
}

// namespace returns the pod's namespace, "" when it is chosen on applying.
func (p *Pod) namespace() string {
	return cmp.Or(p.owner.meta.Namespace, p.owner.template.Namespace)
}

// hostname returns the hostname inside the pod.
func (p *Pod) hostname() value {
	spec := p.owner.spec
	switch {
	case spec.HostNetwork || isTrue(spec.SetHostnameAsFQDN):
		return matching(hostnamePattern)
	case spec.HostnameOverride != nil && *spec.HostnameOverride != "":
		return text(cutHostname(*spec.HostnameOverride))
	case p.hostnames != nil:
		return matching(p.hostnames.body())
	case spec.Hostname != "" && !p.owner.hostIsPod:
		return text(spec.Hostname)
	case len(p.names.text()) > maxHostname:
		return text(cutHostname(p.names.text()))
	case p.names.longest() > maxHostname:
		return matching(hostnamePattern)
	}
	return placeholder(sandboxName)
}

// sandboxHostname returns what the runtime is told of the hostname: in the node's network nothing.
func (p *Pod) sandboxHostname() string {
	hostname := p.hostname()
	if p.owner.spec.HostNetwork {
		hostname = text("")
	}
	if template, _ := hostname.template(); template == policydata.PodHostname {
		return template
	}
	return hostname.anchored(nil)
}

// maxHostname is the length beyond which the kubelet cuts a hostname.
const maxHostname = 63

func cutHostname(name string) string {
	if len(name) <= maxHostname {
		return name
	}
	return strings.TrimRight(name[:maxHostname], "-.")
}

// static returns the pod as a node's static one.
func (p *Pod) static() *Pod {
	named := *p
	named.names = nil
	for _, n := range p.names {
		named.names = append(named.names, n.static())
	}
	return &named
}

// serviceAccount returns the name of the pod's service account.
func (p *Pod) serviceAccount() string {
	return cmp.Or(p.owner.spec.ServiceAccountName, p.owner.spec.DeprecatedServiceAccount, "default")
}

// containers returns the pod's containers in the order in which they start, with their fields.
func (p *Pod) containers() []placed {
	var all []placed
	for i := range p.owner.spec.InitContainers {
		all = append(all, placed{&p.owner.spec.InitContainers[i], fmt.Sprintf("spec.initContainers[%d]", i), true})
	}
	for i := range p.owner.spec.Containers {
		all = append(all, placed{&p.owner.spec.Containers[i], fmt.Sprintf("spec.containers[%d]", i), false})
	}
	return all
}

// placed is a container with its place in the pod.
type placed struct {
	*corev1.Container
	field string
	init  bool
}

// security returns the container's security context, an empty one when it has none.
func (c placed) security() *corev1.SecurityContext {
	return cmp.Or(c.SecurityContext, &corev1.SecurityContext{})
}

// sidecar reports whether an init container keeps running.
func (c placed) sidecar() bool {
	return c.init && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
