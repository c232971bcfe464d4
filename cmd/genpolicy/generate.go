package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"portcullis/hostdata/initdata"
	"portcullis/images"
	"portcullis/rules"
	"portcullis/rules/generate"
	"portcullis/rules/generate/kata"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// job is one call of genpolicy with everything it needs read and opened.
type job struct {
	flags     flags
	io        stdio
	settings  *settings.Settings
	initdata  *initdata.Document // nil without --initdata-path
	rules     string
	foreign   bool // the rules read policy_data in upstream's shape
	images    *images.Opener
	generator *generate.Generator
	sources   []*source
}

// makePolicies is genpolicy without a verb.
func makePolicies(ctx context.Context, f flags, io stdio) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	j := &job{flags: f, io: io}
	if err := j.read(); err != nil {
		return err
	}
	opened, err := f.images.open(io.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	configs, err := j.configs()
	if err != nil {
		return err
	}
	j.images = opened.images
	j.generator = generate.New(j.settings, j.images, configs, generate.Options{RequireDigests: f.needDigests})
	printed, err := j.policies(ctx)
	if err != nil {
		return err
	}
	return j.write(printed)
}

// check refuses flags that contradict each other.
func (f *flags) check() error {
	switch {
	case f.raw && f.base64:
		return usagef("--raw-out and --base64-out cannot both be given")
	case !slices.Contains([]string{"", string(settings.Initdata), string(settings.Policy)}, f.annotation):
		return usagef("--annotation is %q, want initdata or policy", f.annotation)
	case f.initdata != "" && f.annotation == string(settings.Policy):
		return usagef("--initdata-path needs --annotation initdata")
	}
	return nil
}

// read reads settings, rules, initdata and manifests.
func (j *job) read() (err error) {
	if j.settings, err = loadSettings(j.flags, j.io.err); err != nil {
		return err
	}
	if j.flags.annotation != "" {
		j.settings.Annotation = settings.Annotation(j.flags.annotation)
	}
	if j.initdata, err = loadInitdata(j.flags.initdata); err != nil {
		return err
	}
	if err := j.readRules(); err != nil {
		return err
	}
	j.sources, err = manifests(j.flags, j.io.in)
	if err == nil && j.flags.output != "" && len(j.sources) > 1 {
		return usagef("--output is one file, but -y names a folder of %d", len(j.sources))
	}
	return err
}

// readRules reads the file of -p. Rules that are not ours read upstream's shape.
func (j *job) readRules() error {
	j.rules = rules.Text()
	if j.flags.rules == "" {
		return nil
	}
	text, err := readFile(j.flags.rules)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	j.foreign = policydata.Digest(string(text)) != policydata.Digest(j.rules)
	j.rules = string(text)
	if j.foreign && j.flags.compact {
		return usagef("--compact is for the built-in rules, which guests hold")
	}
	return nil
}

// configs collects the ConfigMaps and Secrets of all files.
func (j *job) configs() (*generate.Configs, error) {
	var configs generate.Configs
	for _, s := range j.sources {
		if err := configs.Add(s.manifest); err != nil {
			return nil, err
		}
	}
	for _, path := range j.flags.configFiles {
		m, err := parseFile(path, j.flags.ignoreUnknown)
		if err != nil {
			return nil, err
		}
		if err := configs.Add(m); err != nil {
			return nil, err
		}
	}
	return &configs, nil
}

// policies makes the policy of every pod, writes it into its manifest in memory,
// and returns what -r or -b prints.
func (j *job) policies(ctx context.Context) (string, error) {
	var printed strings.Builder
	var faults []error
	for _, s := range j.sources {
		j.warn(s.manifest.Warnings())
		for _, p := range s.manifest.Pods() {
			if !j.selected(p) {
				continue
			}
			if err := j.pod(ctx, s.manifest, p, &printed); err != nil {
				if _, only := generate.Findings(err); !only {
					return "", err
				}
				faults = append(faults, err)
			}
		}
	}
	return printed.String(), errors.Join(faults...)
}

// selected applies --runtime-class-names.
func (j *job) selected(p *generate.Pod) bool {
	prefixes := j.flags.runtimeClasses
	return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(p.RuntimeClass(), prefix) })
}

func (j *job) warn(found []*generate.Finding) {
	for _, w := range found {
		fmt.Fprintf(j.io.err, "genpolicy: warning: %s\n", w)
	}
}

// pod makes and places one policy.
func (j *job) pod(ctx context.Context, m *generate.Manifest, p *generate.Pod, printed io.Writer) error {
	if j.flags.lockDigests {
		if err := m.LockDigests(ctx, p, j.images); err != nil {
			return err
		}
	}
	made, warnings, err := j.generator.Policy(ctx, p)
	j.warn(warnings)
	if err != nil {
		return err
	}
	text, err := j.text(made)
	if errors.Is(err, kata.ErrUnsaid) {
		return &generate.Finding{File: m.File(), Text: fmt.Sprintf("%s: %v", p.Name(), err)}
	}
	if err != nil {
		return err
	}
	key, value, err := j.annotation(p, text)
	if err != nil {
		return err
	}
	switch {
	case j.flags.raw:
		_, err = printed.Write(text)
	case j.flags.base64:
		_, err = io.WriteString(printed, value)
	}
	if err != nil {
		return err
	}
	return m.Annotate(p, key, value)
}

// text renders a policy in the form asked for.
func (j *job) text(p *policydata.Policy) ([]byte, error) {
	switch {
	case j.foreign:
		return kata.Text(j.rules, p, j.settings)
	case j.flags.compact:
		return p.Compact(j.rules)
	}
	return p.Full(j.rules)
}

// annotation returns key and value of the annotation that carries a policy.
func (j *job) annotation(p *generate.Pod, policy []byte) (key, value string, err error) {
	other := initdata.Annotation
	if j.settings.Annotation == settings.Policy {
		if p.Annotation(other) != "" {
			j.warnOther(p, other)
		}
		return initdata.PolicyAnnotation, initdata.EncodePolicy(policy), nil
	}
	if other = initdata.PolicyAnnotation; p.Annotation(other) != "" {
		j.warnOther(p, other)
	}
	doc, err := j.document(p, policy)
	if err != nil {
		return "", "", err
	}
	value, err = annotationValue(doc)
	return initdata.Annotation, value, err
}

func (j *job) warnOther(p *generate.Pod, key string) {
	fmt.Fprintf(j.io.err, "genpolicy: warning: %s also has the annotation %s, which may carry another policy; remove it\n", p.Name(), key)
}
