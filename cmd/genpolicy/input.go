// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/hostdata/initdata"
	"portcullis/internal/bounded"
	"portcullis/rules/generate"
)

// maxInput is the most bytes read from one file or stdin.
const maxInput = 64 << 20

// source is a manifest file; path is "" for stdin.
type source struct {
	path     string
	manifest *generate.Manifest
}

// manifests reads what a path names: a file, every manifest of a folder, or stdin for "-". It also gives the files of a folder that it
// passed over because kustomize reads them, and nobody else.
func manifests(path string, ignoreUnknown bool, in io.Reader) (all []*source, passed []string, err error) {
	if path == "" || path == "-" {
		text, err := bounded.ReadAll(in, maxInput)
		if err != nil {
			return nil, nil, fmt.Errorf("read stdin: %w", err)
		}
		m, err := generate.Parse("stdin", text, generate.ReadOptions{IgnoreUnknown: ignoreUnknown})
		return []*source{{"", m}}, nil, err
	}
	paths, passed, err := manifestPaths(path)
	if err != nil {
		return nil, passed, err
	}
	var faults []error
	for _, path := range paths {
		m, err := parseFile(path, ignoreUnknown)
		if err != nil {
			faults = append(faults, err)
		}
		all = append(all, &source{filepath.Clean(path), m})
	}
	return all, passed, errors.Join(faults...)
}

// manifestPaths lists the files of a folder and the folders in it, sorted.
func manifestPaths(path string) (all, passed []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil, nil
	}
	err = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case at != path && strings.HasPrefix(name, "."):
			if entry.IsDir() {
				return filepath.SkipDir
			}
		case entry.IsDir():
		case name == "Chart.yaml":
			return fmt.Errorf("%s is a Helm chart, whose templates are no manifests: helm template %s | genpolicy > pods.yaml", filepath.Dir(at), filepath.Dir(at))
		case name == "kustomization.yaml" || name == "kustomization.yml":
			passed = append(passed, at)
		case slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(at)):
			all = append(all, at)
		}
		return nil
	})
	if err != nil {
		return nil, passed, fmt.Errorf("read folder: %w", err)
	}
	if len(all) == 0 {
		return nil, passed, fmt.Errorf("read folder %s: it has no .yaml, .yml or .json file", path)
	}
	return all, passed, nil
}

func parseFile(path string, ignoreUnknown bool) (*generate.Manifest, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return generate.Parse(path, text, generate.ReadOptions{IgnoreUnknown: ignoreUnknown})
}

func readFile(path string) ([]byte, error) { return bounded.ReadFile(path, maxInput) }

// loadInitdata reads the document that --initdata-path names, nil without one.
func loadInitdata(path string) (*initdata.Document, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read initdata: %w", err)
	}
	doc, err := initdata.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doc, nil
}
