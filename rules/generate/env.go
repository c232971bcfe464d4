// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/rules/policydata"
)

// defaultPath is what containerd sets for an image that has no environment.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// completionIndex is the variable that tells a pod of an Indexed job its number.
const completionIndex = "JOB_COMPLETION_INDEX"

// kubeletEnv returns the variables that the kubelet gives to a container, apart
// from service links: envFrom first, then env, where a name given again replaces.
func (b *builder) kubeletEnv(c placed) (variables, error) {
	vars := variables{}
	for i, from := range c.EnvFrom {
		if err := b.envFrom(vars, from, fmt.Sprintf("%s.envFrom[%d]", c.field, i)); err != nil {
			return nil, err
		}
	}
	for i, env := range c.Env {
		field := fmt.Sprintf("%s.env[%d]", c.field, i)
		if !validName(env.Name) {
			return nil, b.pod.fault(field+".name", "is not a name for an environment variable")
		}
		if env.ValueFrom == nil || env.Value != "" {
			vars[env.Name] = b.expandEnv(vars, env.Value)
			continue
		}
		found, ok, err := b.valueFrom(c, env.ValueFrom, field+".valueFrom")
		if err != nil {
			return nil, err
		}
		if ok {
			vars[env.Name] = found
		}
	}
	given := func(env corev1.EnvVar) bool { return env.Name == completionIndex }
	if b.pod.owner.indexed && !slices.ContainsFunc(c.Env, given) {
		// The job controller appends it.
		vars[completionIndex] = matching(numberPattern)
	}
	return vars, b.checkText(vars, c.field)
}

// checkText refuses what no request could carry.
func (b *builder) checkText(vars variables, field string) error {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		for _, p := range vars[name] {
			if !utf8.ValidString(p.text) || strings.ContainsRune(p.text, 0) {
				return b.pod.fault(field, fmt.Sprintf("gives %s a value that is not text", name))
			}
		}
		if _, whole := vars[name].hash(); vars[name].hides() && !whole {
			return b.pod.fault(field, fmt.Sprintf("puts a Secret's value into a longer one of %s, which cannot be bound by its hash", name))
		}
	}
	return nil
}

// validName accepts what Kubernetes does: printable ASCII without "=".
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == '=' })
}

func (b *builder) envFrom(vars variables, from corev1.EnvFromSource, field string) error {
	var r reference
	switch {
	case from.ConfigMapRef != nil:
		r = reference{"ConfigMap", from.ConfigMapRef.Name, isTrue(from.ConfigMapRef.Optional), field + ".configMapRef"}
	case from.SecretRef != nil:
		r = reference{"Secret", from.SecretRef.Name, isTrue(from.SecretRef.Optional), field + ".secretRef"}
	default:
		return b.pod.fault(field, "has neither configMapRef nor secretRef")
	}
	found, ok, err := b.resolve(r)
	if err != nil || !ok {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(found.text)) {
		// The kubelet leaves out keys that make no name.
		if name := from.Prefix + key; validName(name) {
			vars[name] = b.bound(r, found.text[key])
		}
	}
	return nil
}

// expandEnv expands references to variables given before, and to service links, which the kubelet knows only at run time.
func (b *builder) expandEnv(vars variables, s string) value {
	return b.withLinks(vars, s).expand(s, nil)
}

// withLinks returns vars with the service links that s refers to.
func (b *builder) withLinks(vars variables, strings ...string) variables {
	all := vars
	for _, s := range strings {
		vars.expand(s, func(name string) {
			if pattern := b.serviceLink(name); pattern != "" {
				if _, own := all[name]; !own {
					all = maps.Clone(all)
					all[name] = matching(linkOrText(name, pattern))
				}
			}
		})
	}
	return all
}

// linkOrText also matches the reference itself, which stays when there is no such service. The API server's is always there.
func linkOrText(name, pattern string) string {
	if strings.HasPrefix(name, "KUBERNETES_") {
		return pattern
	}
	return "(?:" + regexp.QuoteMeta("$("+name+")") + "|" + pattern + ")"
}

// serviceLink returns the pattern of the variable that Kubernetes makes for a service, "" when the name is none. Without service
// links only the API server's are made.
func (b *builder) serviceLink(name string) string {
	if links := b.pod.owner.spec.EnableServiceLinks; links != nil && !*links && !strings.HasPrefix(name, "KUBERNETES_") {
		return ""
	}
	switch {
	case strings.HasSuffix(name, "_SERVICE_HOST"), strings.HasSuffix(name, "_ADDR") && strings.Contains(name, "_PORT_"):
		return addressPattern
	case strings.Contains(name, "_SERVICE_PORT"), strings.HasSuffix(name, "_PORT") && strings.Contains(name, "_PORT_"):
		return portPattern
	case strings.HasSuffix(name, "_PROTO") && strings.Contains(name, "_PORT_"):
		return "(?:tcp|udp|sctp)"
	case strings.HasSuffix(name, "_PORT"), strings.HasSuffix(name, "_TCP"), strings.HasSuffix(name, "_UDP"), strings.HasSuffix(name, "_SCTP"):
		return "(?:tcp|udp|sctp)://" + hostPattern + ":" + portPattern
	}
	return ""
}

// valueFrom returns a variable's value from elsewhere, false when an optional source is absent.
func (b *builder) valueFrom(c placed, from *corev1.EnvVarSource, field string) (value, bool, error) {
	switch {
	case from.FieldRef != nil:
		found, err := b.fieldRef(from.FieldRef.FieldPath, field+".fieldRef.fieldPath")
		return found, true, err
	case from.ResourceFieldRef != nil:
		found, err := b.resourceRef(c, from.ResourceFieldRef, field+".resourceFieldRef")
		return found, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		return b.keyRef(reference{"ConfigMap", ref.Name, isTrue(ref.Optional), field + ".configMapKeyRef"}, ref.Key)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		return b.keyRef(reference{"Secret", ref.Name, isTrue(ref.Optional), field + ".secretKeyRef"}, ref.Key)
	}
	return nil, false, b.pod.fault(field, "names no source")
}

func (b *builder) keyRef(r reference, key string) (value, bool, error) {
	if late, ok, err := b.lateSecret(r, key); ok || err != nil {
		return late, ok, err
	}
	found, ok, err := b.resolve(r)
	if err != nil || !ok {
		return nil, false, err
	}
	content, ok := found.text[key]
	if !ok && !r.optional {
		return nil, false, b.pod.fault(r.field, fmt.Sprintf("asks for key %s, which %s %s does not have", key, r.kind, r.name))
	}
	return b.bound(r, content), ok, nil
}

// env returns the environment of a container: what the runtime sets, then the
// image's, then the kubelet's; a name set again replaces.
func (b *builder) env(c placed, config images.Config, vars variables) (policydata.Env, error) {
	all := b.runtimeEnv()
	if c.TTY {
		all["TERM"] = text("xterm")
	}
	fromImage := variables{}
	if err := b.imageEnv(fromImage, config, c.field); err != nil {
		return policydata.Env{}, err
	}
	maps.Copy(all, fromImage)
	maps.Copy(all, vars)
	env := b.environment(all)
	// containerd sends what the image says of a variable too, before what the pod says.
	for _, name := range slices.Sorted(maps.Keys(fromImage)) {
		if _, both := vars[name]; both {
			content, _ := fromImage[name].literal()
			env.Shadowed = append(env.Shadowed, name+"="+content)
		}
	}
	return env, nil
}

// runtimeEnv returns the variables that the platform says every container has.
func (b *builder) runtimeEnv() variables {
	all := variables{}
	shape := b.settings().Generate.Container
	for name, template := range shape.EnvTemplates {
		all[name] = templateValue(template)
	}
	if _, ok := all["HOSTNAME"]; ok {
		all["HOSTNAME"] = b.pod.hostname()
	}
	for name, pattern := range shape.EnvPatterns {
		all[name] = matching(strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$"))
	}
	if b.pod.Annotation(serviceHostName) == "true" {
		// A webhook of that cloud names the API server in the variables that have its address.
		const name = "(?:" + addressPattern + "|" + dnsPattern + ")"
		for _, variable := range []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT_443_TCP_ADDR"} {
			all[variable] = matching(name)
		}
		for _, variable := range []string{"KUBERNETES_PORT", "KUBERNETES_PORT_443_TCP"} {
			all[variable] = matching(`tcp://(?:` + hostPattern + "|" + dnsPattern + ")(?::" + portPattern + ")?")
		}
	}
	return all
}

// serviceHostName is the annotation by which AKS gives pods the name of the API server instead of its address.
const serviceHostName = "kubernetes.azure.com/set-kube-service-host-fqdn"

func (b *builder) imageEnv(to variables, config images.Config, field string) error {
	env := config.Env
	if len(env) == 0 {
		env = []string{defaultPath}
	}
	for _, entry := range env {
		name, content, ok := strings.Cut(entry, "=")
		if !ok || name == "" || !utf8.ValidString(entry) {
			return b.pod.fault(field+".image", fmt.Sprintf("has an environment that is not NAME=value: %.40q", name))
		}
		to[name] = text(content)
	}
	return nil
}

// environment sorts variables by what is known of them.
func (b *builder) environment(all variables) policydata.Env {
	env := policydata.Env{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if content, ok := all[name].literal(); ok {
			env.Fixed = append(env.Fixed, name+"="+content)
			continue
		}
		if hash, ok := all[name].hash(); ok {
			put(&env.Hashes, name, hash)
			continue
		}
		if template, ok := all[name].template(); ok {
			put(&env.Templates, name, template)
			continue
		}
		to := &env.Patterns
		if all[name].maybe() {
			to = &env.Optional
		}
		put(to, name, all[name].anchored(b.known()))
	}
	slices.Sort(env.Fixed)
	return env
}

// put sets a key of a map that may not be there yet.
func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}
