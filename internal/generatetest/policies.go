// SPDX-License-Identifier: Apache-2.0

package generatetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// Settings returns a platform's settings with built-in drop-ins over them.
func Settings(t testing.TB, platform string, dropIns ...string) *settings.Settings {
	t.Helper()
	var over []settings.DropIn
	for _, name := range dropIns {
		d, err := settings.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		over = append(over, d)
	}
	s, err := settings.Load(platform, over...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Manifest reads a file.
func Manifest(t testing.TB, file string) *generate.Manifest {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse(filepath.Base(file), text, generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Policies makes the policies of all pods of a manifest, with its own ConfigMaps and Secrets. The findings are warnings.
func Policies(m *generate.Manifest, s *settings.Settings, images generate.Images) ([]*policydata.Policy, []*generate.Finding, error) {
	var configs generate.Configs
	if err := configs.Add(m); err != nil {
		return nil, nil, err
	}
	g := generate.New(s, images, &configs, generate.Options{})
	warnings := m.Warnings()
	var all []*policydata.Policy
	for _, p := range m.Pods() {
		made, found, err := g.Policy(context.Background(), p)
		warnings = append(warnings, found...)
		if err != nil {
			return nil, warnings, err
		}
		all = append(all, made)
	}
	return all, warnings, nil
}
