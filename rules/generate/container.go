// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/rules/policydata"
)

// containerPolicy makes the policy of one container of the manifest.
func (b *builder) containerPolicy(ctx context.Context, c placed) (*policydata.Container, error) {
	image, err := b.openImage(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &policydata.Container{
		Type: policydata.TypeContainer, BaseMounts: defaultSet, Namespaces: b.namespaces(policydata.TypeContainer),
		PIDNS: isTrue(b.pod.owner.spec.ShareProcessNamespace), Stdin: c.Stdin, Terminal: c.TTY,
	}
	out.Annotations.Patterns = maps.Clone(b.settings().Generate.Container.Annotations)
	b.annotations(out)
	if err := b.security(c, out); err != nil {
		return nil, err
	}
	b.sysctls(out, b.settings().Generate.Container.Sysctl)
	if err := b.image(ctx, c, image, out); err != nil {
		return nil, err
	}
	if err := b.users(ctx, c, image, out); err != nil {
		return nil, err
	}
	if err := b.process(c, image.Config, out); err != nil {
		return nil, err
	}
	return out, b.passthrough(c, out)
}

// process sets arguments, environment, working directory, mounts and what may be executed later.
func (b *builder) process(c placed, config images.Config, out *policydata.Container) error {
	vars, err := b.kubeletEnv(c)
	if err != nil {
		return err
	}
	if out.Env, err = b.env(c, config, vars); err != nil {
		return err
	}
	if err := b.args(c, config, vars, out); err != nil {
		return err
	}
	out.Cwd = cmp.Or(c.WorkingDir, config.WorkingDir, "/")
	out.StopSignal = stopSignal(c, config)
	b.exec(c, out)
	return b.mounts(c, config, vars, out)
}

// openImage opens a container's image, and says where a tag names it.
func (b *builder) openImage(ctx context.Context, c placed) (*images.Image, error) {
	image, err := b.opener.open(ctx, c)
	if err != nil || image.Reference.Pinned() {
		return image, err
	}
	field := c.field + ".image"
	if b.generator.options.RequireDigests {
		return nil, b.pod.fault(field, "is named by a tag, which can be moved; name it by digest, or let --lock-digests write it")
	}
	if b.settings().Generate.ImageFrom == policydata.GuestPull {
		b.warn(field, "is named by a tag, so the policy does not bind what the guest will pull; --lock-digests writes the digest")
	}
	return image, nil
}

// args sets what runs: command replaces the image's entrypoint and arguments, args alone replaces its arguments.
func (b *builder) args(c placed, config images.Config, vars variables, out *policydata.Container) error {
	vars = b.withLinks(vars, slices.Concat(c.Command, c.Args)...)
	var all []value
	expand := func(list []string) {
		for _, s := range list {
			all = append(all, vars.expand(s, nil))
		}
	}
	verbatim := func(list []string) {
		for _, s := range list {
			all = append(all, text(s))
		}
	}
	if len(c.Command) > 0 {
		expand(c.Command)
		expand(c.Args)
	} else {
		if !slices.Equal(config.Entrypoint, []string{""}) { // by which runtimes mean none
			verbatim(config.Entrypoint)
		}
		expand(c.Args)
		if len(c.Args) == 0 {
			verbatim(config.Cmd)
		}
	}
	if len(all) == 0 {
		return b.pod.fault(c.field+".command", "is empty, and the image has neither entrypoint nor command")
	}
	for i, v := range all {
		if v.hides() {
			return b.pod.fault(c.field, fmt.Sprintf("puts a Secret's value into argument %d, which cannot be bound by its hash; let the process read the variable", i))
		}
		if v.unbound() {
			b.warn(c.field, fmt.Sprintf("puts a Secret's value that is not bound into argument %d, of which the host may choose that part", i))
		}
		literal, ok := v.literal()
		if !ok {
			put(&out.ArgMatches, strconv.Itoa(i), v.match(b.known()))
		}
		out.Args = append(out.Args, literal)
	}
	return nil
}

// exec lists the commands of probes and hooks. The kubelet expands variables in
// those of probes, and only ones that the manifest gives literally.
func (b *builder) exec(c placed, out *policydata.Container) {
	static := variables{}
	for _, env := range c.Env {
		static[env.Name] = text(env.Value)
	}
	add := func(command []string) {
		known := func(have []string) bool { return slices.Equal(have, command) }
		if len(command) > 0 && !slices.ContainsFunc(out.Exec, known) {
			out.Exec = append(out.Exec, command)
		}
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil && probe.Exec != nil {
			command := make([]string, len(probe.Exec.Command))
			for i, s := range probe.Exec.Command {
				command[i], _ = static.expand(s, nil).literal()
			}
			add(command)
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if hook != nil && hook.Exec != nil {
			add(hook.Exec.Command)
		}
	}
}

// passthrough counts the devices that the container's resources stand for.
func (b *builder) passthrough(c placed, out *policydata.Container) error {
	vfio := b.settings().Generate.VFIO
	total := 0
	for _, list := range []corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if amount := list[name]; extended(name) && !amount.IsZero() && !slices.Contains(vfio.Resources, string(name)) {
				return b.pod.fault(c.field+".resources",
					fmt.Sprintf("asks for %s, whose devices are not known; name it in the settings' generate.vfio.resources", name))
			}
		}
	}
	for _, name := range vfio.Resources {
		amount, asked := c.Resources.Limits[corev1.ResourceName(name)]
		if !asked {
			continue
		}
		count, whole := amount.AsInt64()
		if !whole || count < 0 || count > maxDevices {
			return b.pod.fault(c.field+".resources.limits", fmt.Sprintf("asks for %s of %s, which is no number of devices", amount.String(), name))
		}
		total += int(count)
	}
	if total > 0 {
		out.VFIO = policydata.VFIO{Annotation: vfio.Annotation, Count: total, Path: vfio.Path, Type: vfio.Type}
	}
	return nil
}

// maxDevices bounds the devices of one container.
const maxDevices = 64

// extended reports whether a resource is a device plugin's.
func extended(name corev1.ResourceName) bool {
	domain, _, ok := strings.Cut(string(name), "/")
	return ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io")
}
