// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"portcullis/engine/fragment"
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

// manifests reads what a path names: a file, every manifest of a folder, or stdin for "-". It also gives the files of a folder
// that it passed over.
func manifests(path string, ignoreUnknown bool, in io.Reader) (all []*source, passed []*generate.Finding, err error) {
	if path == "" || path == "-" {
		text, err := bounded.ReadAll(in, maxInput)
		if err != nil {
			return nil, nil, fmt.Errorf("read stdin: %w", err)
		}
		m, err := generate.Parse("stdin", text, generate.ReadOptions{IgnoreUnknown: ignoreUnknown})
		return []*source{{"", m}}, nil, err
	}
	paths, passed, err := generate.Files(path)
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

// loadIssuers reads who may update policies, a list in the shape of policy_data.issuers; none without a path.
func loadIssuers(path string) ([]fragment.Issuer, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read issuers: %w", err)
	}
	issuers, err := fragment.ReadIssuers(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return issuers, nil
}

// loadImagePolicy reads what --image-policy names, "" without it.
func loadImagePolicy(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := readFile(path)
	if err != nil {
		return "", fmt.Errorf("read image policy: %w", err)
	}
	policy, err := generate.CompactImagePolicy(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return policy, nil
}
