// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// compat is the drop-in that can be put over upstream's settings too.
const compat = "compat-kata"

// loadSettings reads the platform's settings and what -j names over them. Upstream's
// settings take the place of the platform's; keys without a meaning here are warned of.
func loadSettings(f flags, stderr io.Writer) (*settings.Settings, error) {
	if !slices.Contains(settings.Platforms(), f.platform) {
		return nil, usagef("--platform is %q, want one of %s", f.platform, strings.Join(settings.Platforms(), ", "))
	}
	if len(f.settings) > 0 {
		base, patches, err := upstreamFiles(f.settings[0])
		if err != nil {
			return nil, err
		}
		if base != nil {
			return upstreamSettings(*base, patches, f.settings[1:], stderr)
		}
	}
	over, err := allDropIns(f.settings)
	if err != nil {
		return nil, err
	}
	warnOfCRIO(stderr, over...)
	return settings.Load(f.platform, over...)
}

// warnOfCRIO says of settings that are for CRI-O that nothing here serves it.
func warnOfCRIO(stderr io.Writer, read ...settings.DropIn) {
	for _, d := range read {
		if bytes.Contains(d.Text, []byte("io.kubernetes.cri-o.")) {
			fmt.Fprintf(stderr, "genpolicy: warning: %s: names annotations of CRI-O, which no platform serves: a policy denies every container that CRI-O makes\n", d.Name)
		}
	}
}

// upstreamSettings reads upstream's settings; over may only relax them.
func upstreamSettings(base settings.DropIn, patches []settings.DropIn, over []string, stderr io.Writer) (*settings.Settings, error) {
	if len(over) > 1 || len(over) == 1 && over[0] != compat {
		return nil, usagef("-j %s is upstream's settings, over which only %s can be put", base.Name, compat)
	}
	warnOfCRIO(stderr, append([]settings.DropIn{base}, patches...)...)
	s, ignored, err := settings.FromUpstream(base, patches...)
	if err != nil {
		return nil, err
	}
	for _, key := range ignored {
		fmt.Fprintf(stderr, "genpolicy: warning: %s: %s means nothing here: %s\n", base.Name, key.Key, key.Reason)
	}
	if len(over) == 1 {
		s.Strict = policydata.StrictKata()
	}
	return s, nil
}

// upstreamFiles reads upstream's settings when name is such a file, or a folder
// with genpolicy-settings.json and drop-ins beside it; nil when it is not.
func upstreamFiles(name string) (*settings.DropIn, []settings.DropIn, error) {
	if slices.Contains(settings.DropIns(), name) {
		return nil, nil, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read settings: %w (built-in ones are %s)", err, strings.Join(settings.DropIns(), ", "))
	}
	path := name
	var more []string
	if info.IsDir() {
		path = filepath.Join(name, "genpolicy-settings.json")
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return nil, nil, nil
		}
		if more, err = filepath.Glob(filepath.Join(name, "genpolicy-settings.d", "*.json")); err != nil {
			return nil, nil, fmt.Errorf("read settings: %w", err)
		}
	}
	all, err := readDropIns(append([]string{path}, more...))
	if err != nil || !bytes.HasPrefix(bytes.TrimSpace(all[0].Text), []byte("{")) {
		return nil, nil, err
	}
	return &all[0], all[1:], nil
}

func allDropIns(names []string) ([]settings.DropIn, error) {
	var all []settings.DropIn
	for _, name := range names {
		some, err := dropIns(name)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// dropIns reads a drop-in by its name, a file, or the files of a folder in order.
func dropIns(name string) ([]settings.DropIn, error) {
	if slices.Contains(settings.DropIns(), name) {
		d, err := settings.Named(name)
		return []settings.DropIn{d}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w (built-in ones are %s)", err, strings.Join(settings.DropIns(), ", "))
	}
	paths := []string{name}
	if info.IsDir() {
		if paths, err = filepath.Glob(filepath.Join(name, "*.toml")); err != nil || len(paths) == 0 {
			return nil, fmt.Errorf("read settings %s: the folder has no .toml file", name)
		}
	}
	return readDropIns(paths)
}

func readDropIns(paths []string) ([]settings.DropIn, error) {
	var all []settings.DropIn
	for _, path := range paths {
		text, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		all = append(all, settings.DropIn{Name: path, Text: text})
	}
	return all, nil
}
