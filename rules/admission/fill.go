// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/rules/policydata"
)

// annotatedImages are the images of a pod as its policy knows them.
type annotatedImages struct {
	pod *corev1.Pod
	has *policydata.Policy
}

// system is where the kubelet and the runtime mount by themselves, and no image may have a volume.
var system = regexp.MustCompile(`^/(dev|proc|sys|etc|(var/)?run/secrets)(/|$)`)

// Image has the configuration that the policy was made with, as far as it shows. Several containers of one image show the same.
func (a *annotatedImages) Image(_ context.Context, name string) (*images.Image, error) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return nil, err
	}
	out := &images.Image{Reference: ref}
	for _, c := range slices.Concat(a.pod.Spec.InitContainers, a.pod.Spec.Containers) {
		p := a.has.Containers[c.Name]
		if c.Image != name || p == nil {
			continue
		}
		out.Config.User, out.Config.WorkingDir = fmt.Sprintf("%d:%d", p.OCI.Process.User.UID, p.OCI.Process.User.GID), p.Cwd
		for _, entry := range p.Env.Fixed {
			if strings.HasPrefix(entry, "PATH=") && len(out.Config.Env) == 0 { // or the runtime's own would be added
				out.Config.Env = []string{entry}
			}
		}
		for destination := range p.Mounts {
			mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return path.Clean(m.MountPath) == destination })
			if !mounted && !slices.Contains(out.Config.Volumes, destination) && !system.MatchString(destination) {
				out.Config.Volumes = append(out.Config.Volumes, destination)
			}
		}
		if rest := len(p.Args) - len(c.Args); len(c.Command) == 0 && rest >= 0 {
			out.Config.Entrypoint = slices.Clone(p.Args[:rest])
			return out, nil
		}
	}
	if len(out.Config.Entrypoint) == 0 {
		out.Config.Entrypoint = []string{"unknown"} // a container that the policy does not have, or whose command the pod says
	}
	return out, nil
}

// fill puts into a policy that was made of the pod alone what only the annotation can say.
func fill(made, has *policydata.Policy, pod *corev1.Pod) {
	takeSets(made.Common.Mounts, has.Common.Mounts)
	takeSets(made.Common.Paths, has.Common.Paths)
	takeSets(made.Common.Capabilities, has.Common.Capabilities)
	made.Requests, made.Order, made.Strict = has.Requests, has.Order, has.Strict
	words := identityWords(pod)
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		m, h := made.Containers[c.Name], has.Containers[c.Name]
		if m == nil || h == nil {
			continue
		}
		m.Annotations, m.Sysctl = h.Annotations, h.Sysctl // the settings' alone
		m.Env = fillEnv(m.Env, h.Env, words)
		fillArgs(m, h, words)
		fillUser(m, h)
		fillMounts(m, h)
		if sameImage(m, h) {
			m.Image = h.Image
		}
	}
}

// takeSets gives sets that both have the content that the policy was made with: they are the settings' alone.
func takeSets[V any](made, has map[string]V) {
	for name := range made {
		if v, ok := has[name]; ok {
			made[name] = v
		}
	}
}

// identityWords fill the templates of a policy.
func identityWords(pod *corev1.Pod) *strings.Replacer {
	return strings.NewReplacer("$(sandbox-name)", pod.Name, "$(sandbox-namespace)", pod.Namespace, "$(sandbox-uid)", string(pod.UID))
}

// fillEnv leaves of the pod's variables those that the policy's do not admit: the others are as the policy has them, and so are
// those that the pod does not name.
func fillEnv(made, has policydata.Env, words *strings.Replacer) policydata.Env {
	out := policydata.Env{
		Fixed: slices.Clone(has.Fixed), Hashes: has.Hashes, Optional: maps.Clone(has.Optional), Shadowed: has.Shadowed,
		Patterns: maps.Clone(has.Patterns), Templates: maps.Clone(has.Templates),
	}
	remove := func(name string) {
		out.Fixed = slices.DeleteFunc(out.Fixed, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
		delete(out.Optional, name)
		delete(out.Patterns, name)
		delete(out.Templates, name)
	}
	for _, entry := range made.Fixed {
		name, value, _ := strings.Cut(entry, "=")
		if !admits(has, name, value, words) {
			remove(name)
			out.Fixed = append(out.Fixed, entry)
		}
	}
	for name, template := range made.Templates {
		if has.Templates[name] != template && !admits(has, name, words.Replace(template), words) {
			remove(name)
			out.Templates = set(out.Templates, name, template)
		}
	}
	// Patterns are of what the node and the cluster give, and of the settings.
	for name, pattern := range made.Patterns {
		if !named(has, name) {
			out.Patterns = set(out.Patterns, name, pattern)
		}
	}
	slices.Sort(out.Fixed)
	return out
}

func set(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// named says whether a policy's variables have one of that name.
func named(e policydata.Env, name string) bool {
	_, optional := e.Optional[name]
	_, pattern := e.Patterns[name]
	_, template := e.Templates[name]
	_, hash := e.Hashes[name]
	return optional || pattern || template || hash || slices.ContainsFunc(e.Fixed, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
}

// admits says whether a variable may have a value.
func admits(e policydata.Env, name, value string, words *strings.Replacer) bool {
	if slices.Contains(e.Fixed, name+"="+value) {
		return true
	}
	if template, ok := e.Templates[name]; ok && words.Replace(template) == value {
		return true
	}
	for _, patterns := range []map[string]string{e.Patterns, e.Optional} {
		if pattern, ok := patterns[name]; ok && matches(pattern, value) {
			return true
		}
	}
	return false
}

func matches(pattern, value string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(value)
}

// fillArgs takes the policy's arguments where they admit the pod's.
func fillArgs(made, has *policydata.Container, words *strings.Replacer) {
	if len(made.Args) != len(has.Args) {
		return
	}
	for i, arg := range made.Args {
		m, known := has.ArgMatches[strconv.Itoa(i)]
		own, open := made.ArgMatches[strconv.Itoa(i)]
		switch {
		case open && own == m:
		case open && own.Template != "":
			arg = words.Replace(own.Template)
			fallthrough
		default:
			if known && !(m.Template != "" && words.Replace(m.Template) == arg || m.Pattern != "" && matches(m.Pattern, arg)) || !known && arg != has.Args[i] {
				return
			}
		}
	}
	made.Args, made.ArgMatches = has.Args, has.ArgMatches
}

// fillUser takes what the image's accounts give to a user.
func fillUser(made, has *policydata.Container) {
	user, bound := &made.OCI.Process.User, has.OCI.Process.User
	if user.UID == bound.UID && user.GID == bound.GID {
		user.AdditionalGids = bound.AdditionalGids
		made.OtherUsers = has.OtherUsers
	}
}

// fillMounts takes contents, which ConfigMaps and Secrets have, and the volumes that the image asks for.
func fillMounts(made, has *policydata.Container) {
	for destination, m := range made.Mounts {
		if h, ok := has.Mounts[destination]; ok {
			m.Contents, m.MayBeMissing = h.Contents, h.MayBeMissing
			made.Mounts[destination] = m
		}
	}
}

// sameImage compares images by what the manifest calls them.
func sameImage(made, has *policydata.Container) bool {
	return made.Image.Source == has.Image.Source && made.OCI.Annotations == has.OCI.Annotations
}
