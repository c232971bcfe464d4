// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/engine/fragment"
	"portcullis/hostdata/initdata"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// Generator makes policies for one platform. It may be used by one goroutine.
type Generator struct {
	settings *settings.Settings
	images   Images
	configs  *Configs
	options  Options
}

// Options change what a Generator does.
type Options struct {
	RequireDigests bool // refuse images that are named by a tag
	// Issuers may update each policy by fragments, as far as they may set something of that pod's.
	Issuers []fragment.Issuer
}

// New makes a Generator. configs may be nil.
func New(s *settings.Settings, images Images, configs *Configs, o Options) *Generator {
	if configs == nil {
		configs = &Configs{}
	}
	return &Generator{settings: s, images: images, configs: configs, options: o}
}

// Policy returns the policy of a pod, which it leaves as it is, and warnings about
// it. The error is a [Finding] or several where the manifest is at fault.
func (g *Generator) Policy(ctx context.Context, p *Pod) (*policydata.Policy, []*Finding, error) {
	if g.settings.Generate.StaticPods && p.kind == "Pod" {
		p = p.static()
	}
	b := &builder{generator: g, pod: p, opener: opener{images: g.images, pod: p}}
	if err := b.build(ctx); err != nil {
		return nil, b.warnings, err
	}
	return b.policy, b.warnings, nil
}

// builder makes one policy.
type builder struct {
	generator *Generator
	pod       *Pod
	policy    *policydata.Policy
	volumes   map[string]*corev1.Volume
	warnings  []*Finding
	opener    opener
}

func (b *builder) settings() *settings.Settings { return b.generator.settings }

// warn records a warning about a field below the pod template, once.
func (b *builder) warn(field, text string) {
	f := b.pod.fault(field, text)
	if !slices.ContainsFunc(b.warnings, func(w *Finding) bool { return *w == *f }) {
		b.warnings = append(b.warnings, f)
	}
}

func (b *builder) build(ctx context.Context) error {
	if err := b.checkFields(); err != nil {
		return err
	}
	var err error
	if b.policy, err = b.settings().Policy(); err != nil {
		return err
	}
	if b.volumes, err = b.pod.podVolumes(); err != nil {
		return err
	}
	if err := b.podSecurity(); err != nil {
		return err
	}
	b.sandbox()
	if err := b.sandboxContainer(ctx); err != nil {
		return err
	}
	initContainers := false
	previous := policydata.After{Container: policydata.SandboxContainer, State: policydata.Started}
	var faults []error
	for _, c := range b.pod.containers() {
		if _, twice := b.policy.Containers[c.Name]; twice || !validContainer(c.Name) {
			return b.pod.fault(c.field+".name", fmt.Sprintf("is %q, which is no name of a container or used twice", c.Name))
		}
		made, err := b.containerPolicy(ctx, c)
		if err != nil {
			made = &policydata.Container{}
		}
		if err != nil && !errors.Is(err, errUnopened) {
			faults = append(faults, err)
		}
		made.After = []policydata.After{previous}
		b.policy.Containers[c.Name] = made
		if c.init {
			initContainers = true
			previous = policydata.After{Container: c.Name, State: policydata.Succeeded}
		}
		if c.sidecar() {
			previous.State = policydata.Started
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	b.policy.Order = b.settings().Order.Of(initContainers)
	b.issuers()
	b.copiedDirs()
	b.prune()
	if err := b.policy.Validate(); err != nil {
		return fmt.Errorf("make policy of %s: %w", b.pod.Name(), err)
	}
	return nil
}

// prune takes out of Common the sets that no container refers to.
func (b *builder) prune() {
	capabilities, mounts, paths := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range b.policy.Containers {
		capabilities[c.Capabilities], mounts[c.BaseMounts], paths[c.Paths] = true, true, true
	}
	common := &b.policy.Common
	maps.DeleteFunc(common.Capabilities, func(name string, _ policydata.Capabilities) bool { return !capabilities[name] })
	maps.DeleteFunc(common.Mounts, func(name string, _ []policydata.ExactMount) bool { return !mounts[name] })
	maps.DeleteFunc(common.Paths, func(name string, _ policydata.Paths) bool { return !paths[name] })
}

// validContainer accepts DNS labels.
func validContainer(name string) bool {
	return name != "" && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-' &&
		!strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// sandbox sets what the policy says of the pod itself.
func (b *builder) sandbox() {
	p, s := b.pod, &b.policy.Sandbox
	s.Name, s.Namespace = p.names.pattern(), p.namespace()
	s.Hostname = p.sandboxHostname()
	if asked := p.owner.spec.Hostname; asked != "" && p.owner.hostIsPod {
		b.warn("spec.hostname", fmt.Sprintf("is %q, and a StatefulSet's controller puts the pod's name in its place", asked))
	}
	if links := p.owner.spec.EnableServiceLinks; links != nil && !*links {
		b.policy.Common.Env.Whole = onlyKubernetes(b.policy.Common.Env.Whole)
	}
}

// onlyKubernetes narrows the patterns of service links to those of the API server.
func onlyKubernetes(patterns []string) []string {
	var out []string
	for _, pattern := range patterns {
		out = append(out, strings.Replace(pattern, "^[A-Z][A-Z0-9_]*_", "^KUBERNETES_", 1))
	}
	return out
}

// known returns patterns for what the placeholders stand for.
func (b *builder) known() map[string]string {
	namespace := dnsPattern
	if known := b.pod.namespace(); known != "" {
		namespace = text(known).anchored(nil)
		namespace = namespace[1 : len(namespace)-1]
	}
	return map[string]string{sandboxName: b.pod.names.body(), sandboxNamespace: namespace, sandboxUID: uidPattern}
}

// namespaces are those that a container has of its own. A pod in the host's network has no hostname of its own either.
func (b *builder) namespaces(t policydata.ContainerType) []string {
	if t == policydata.TypeSandbox && b.pod.owner.spec.HostNetwork {
		return []string{"ipc", "mount"}
	}
	return []string{"ipc", "uts", "mount"}
}

// sandboxContainer adds the pause container.
func (b *builder) sandboxContainer(ctx context.Context) error {
	shape := b.settings().Generate
	out := &policydata.Container{
		Type: policydata.TypeSandbox, Args: shape.PauseArgs, BaseMounts: defaultSet, Capabilities: defaultSet, Paths: defaultSet,
		Cwd: "/", NoNewPrivs: true, ReadonlyRoot: true, Namespaces: b.namespaces(policydata.TypeSandbox),
		Image: policydata.Image{From: shape.ImageFrom},
		Env:   policydata.Env{Fixed: []string{defaultPath}},
	}
	out.Annotations.Patterns = maps.Clone(shape.Sandbox.Annotations)
	b.annotations(out)
	b.sysctls(out, shape.Sandbox.Sysctl)
	b.platformMounts(shape.Sandbox.Mounts, out)
	switch shape.ImageFrom {
	case policydata.GuestPull:
		out.Image.Source = "pause"
	case policydata.Layers:
		image, err := b.generator.images.Image(ctx, shape.PauseImage)
		if err != nil {
			return err
		}
		layers, err := verityLayers(ctx, image)
		if err != nil {
			return err
		}
		layerStorages(layers, out)
	}
	var err error
	if out.OCI.Process.User, out.OtherUsers, err = b.sandboxUsers(); err != nil {
		return err
	}
	b.policy.Containers[policydata.SandboxContainer] = out
	return nil
}

// annotations adds the pod's own, which the runtime may pass on.
func (b *builder) annotations(out *policydata.Container) {
	for key, value := range b.pod.owner.template.Annotations {
		if !slices.Contains(notPassed, key) {
			put(&out.Annotations.Optional, key, value)
		}
	}
}

// notPassed are annotations that never reach the guest: those that carry policies and kubectl's copy of the manifest.
var notPassed = []string{
	initdata.Annotation,
	initdata.OlderAnnotation,
	initdata.PolicyAnnotation,
	"kubectl.kubernetes.io/last-applied-configuration",
}

// Names of sets in policydata.Common that the generator refers to.
const (
	defaultSet    = "default"
	privilegedSet = "privileged"
)
