// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// job is one call of genpolicy with everything it needs read and opened.
type job struct {
	flags     flags
	io        stdio
	settings  *settings.Settings
	output    generate.Output
	images    generate.Images
	generator *generate.Generator
	sources   []*source
	origins   origins
	done      summary
}

// makePolicies is genpolicy without a verb.
func makePolicies(ctx context.Context, f flags, io stdio) error {
	paths := f.yamlFiles
	if len(paths) == 0 {
		if isTerminal(io.in) {
			return usagef("FILE is missing; \"-\" reads from the terminal")
		}
		paths = []string{"-"}
	}
	return withJob(f, io, paths, func(j *job) error {
		printed, err := j.policies(ctx)
		if err != nil {
			return err
		}
		if !f.dryRun {
			if err := j.write(printed); err != nil {
				return err
			}
			if err := j.writeStatement(); err != nil {
				return err
			}
		}
		return j.report()
	})
}

// withJob reads and opens what the flags and paths name, and does one thing with it.
func withJob(f flags, io stdio, paths []string, do func(*job) error) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	j := &job{flags: f, io: io}
	if err := j.read(paths); err != nil {
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
	j.images = noted{opened.images, &j.origins}
	issuers, err := loadIssuers(f.issuers)
	if err != nil {
		return err
	}
	j.generator = generate.New(j.settings, j.images, configs, generate.Options{RequireDigests: f.requireDigests(), Issuers: issuers})
	return do(j)
}

// check refuses flags that contradict each other.
func (f *flags) check() error {
	switch {
	case f.json && (f.raw || f.base64):
		return usagef("--json cannot be given with --raw-out or --base64-out")
	case f.json && !f.dryRun && f.output == "" && (len(f.yamlFiles) == 0 || slices.Contains(f.yamlFiles, "-")):
		return usagef("--json and the manifest would both go to stdout: name a FILE, --output or --dry-run")
	case f.raw && f.base64:
		return usagef("--raw-out and --base64-out cannot both be given")
	case !slices.Contains([]string{"", string(settings.Initdata), string(settings.Policy)}, f.annotation):
		return usagef("--annotation is %q, want initdata or policy", f.annotation)
	case f.initdata != "" && f.annotation == string(settings.Policy):
		return usagef("--initdata-path needs --annotation initdata")
	}
	return nil
}

// read reads settings, rules, initdata and the manifests at paths.
func (j *job) read(paths []string) (err error) {
	if j.settings, err = loadSettings(j.flags, j.io.err); err != nil {
		return err
	}
	if j.flags.annotation != "" {
		j.settings.Annotation = settings.Annotation(j.flags.annotation)
	}
	if j.output.Initdata, err = loadInitdata(j.flags.initdata); err != nil {
		return err
	}
	if j.output.ImagePolicy, err = loadImagePolicy(j.flags.imagePolicy); err != nil {
		return err
	}
	if j.output.ImagePolicy != "" && j.settings.Annotation != settings.Initdata {
		return usagef("--image-policy needs --annotation initdata")
	}
	if err := j.readRules(); err != nil {
		return err
	}
	for _, path := range paths {
		if err := j.readManifests(path); err != nil {
			return err
		}
	}
	if j.flags.output != "" && len(j.sources) > 1 {
		return usagef("--output is one file, but there are %d manifests", len(j.sources))
	}
	return nil
}

// readManifests reads what one path names. A file that is named twice counts once.
func (j *job) readManifests(path string) error {
	some, passed, err := manifests(path, j.flags.ignoreUnknown, j.io.in)
	j.warn(passed)
	if err != nil {
		return err
	}
	for _, s := range some {
		if !slices.ContainsFunc(j.sources, func(other *source) bool { return other.path == s.path }) {
			j.sources = append(j.sources, s)
		}
	}
	return nil
}

// readRules reads the file of -p.
func (j *job) readRules() error {
	j.output.Compact = j.flags.compact
	if j.flags.rules == "" {
		return nil
	}
	text, err := readFile(j.flags.rules)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	j.output.Rules = string(text)
	if err := j.output.Check(); err != nil {
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
		if err := j.origins.manifest(cmp.Or(s.path, "stdin"), s.manifest); err != nil {
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
		if err := j.origins.manifest(path, m); err != nil {
			return nil, err
		}
	}
	return &configs, nil
}

// policies makes the policy of every pod, writes it into its manifest in memory, and returns what -r or -b prints.
func (j *job) policies(ctx context.Context) (string, error) {
	var printed strings.Builder
	var faults []error
	if j.settings.Generate.ImageFrom == policydata.Host {
		j.warn([]*generate.Finding{{File: "settings", Text: "the host chooses the images: a policy binds their names there, and not what runs"}})
	}
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
		if j.flags.json {
			j.done.Warnings = append(j.done.Warnings, warning{w.File, w.Line, w.Field, w.Text})
		} else {
			fmt.Fprintf(j.io.err, "genpolicy: warning: %s\n", w)
		}
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
	out, warnings, err := j.generator.Render(p, made, j.output)
	j.warn(warnings)
	if err != nil {
		return err
	}
	switch {
	case j.flags.raw:
		_, err = printed.Write(out.Text)
	case j.flags.base64:
		_, err = io.WriteString(printed, out.Value)
	}
	if err != nil {
		return err
	}
	if err := j.origins.made(p, out); err != nil {
		return err
	}
	j.done.add(m.File(), p, out)
	return m.Write(p, out)
}
