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

// manifests reads what a path names: a file, every manifest of a folder, or stdin for "" and "-".
func manifests(path string, ignoreUnknown bool, in io.Reader) ([]*source, error) {
	if path == "" || path == "-" {
		text, err := bounded.ReadAll(in, maxInput)
		if err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		m, err := generate.Parse("stdin", text, generate.ReadOptions{IgnoreUnknown: ignoreUnknown})
		return []*source{{"", m}}, err
	}
	paths, err := manifestPaths(path)
	if err != nil {
		return nil, err
	}
	var all []*source
	var faults []error
	for _, path := range paths {
		m, err := parseFile(path, ignoreUnknown)
		if err != nil {
			faults = append(faults, err)
		}
		all = append(all, &source{path, m})
	}
	return all, errors.Join(faults...)
}

// manifestPaths lists the files of a folder and the folders in it, sorted.
func manifestPaths(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var all []string
	err = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if at != path && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(at)) {
			all = append(all, at)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read folder: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read folder %s: it has no .yaml, .yml or .json file", path)
	}
	return all, nil
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
