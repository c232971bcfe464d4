// SPDX-License-Identifier: Apache-2.0

// Sbom writes what a Go binary is made of as a CycloneDX 1.6 document.
//
// # Synopsis
//
//	sbom BINARY >FILE
//
// It reads the module list that the Go linker put into the binary, as "go version -m" does, so that it speaks of the binary
// and not of a source tree. It holds no time and no serial number: the same binary gives the same document.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program but for the process around it.
func run(args []string, out, log io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(log, "usage: sbom BINARY")
		return 2
	}
	doc, err := describe(args[0])
	if err != nil {
		fmt.Fprintln(log, "sbom:", err)
		return 3
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		fmt.Fprintln(log, "sbom:", err)
		return 3
	}
	return 0
}

// document is the part of a CycloneDX document that is used here.
type document struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref     string `json:"bom-ref"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []sum  `json:"hashes,omitempty"`
}

type sum struct {
	Alg     string `json:"alg"`
	Content string `json:"content"` // hex
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// describe reads the binary at path.
func describe(path string) (document, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return document{}, fmt.Errorf("read binary: %w", err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return document{}, fmt.Errorf("read module list: %w", err)
	}
	digest := sha256.Sum256(binary)
	name := filepath.Base(path)
	doc := document{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{component{Ref: name, Type: "application", Name: name, Version: info.Main.Version,
			Hashes: []sum{{"SHA-256", hex.EncodeToString(digest[:])}}}},
		Components: []component{{Ref: "go", Type: "library", Name: "std",
			Version: strings.TrimPrefix(info.GoVersion, "go"), PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}},
	}
	for _, m := range info.Deps {
		c, err := library(m)
		if err != nil {
			return document{}, err
		}
		doc.Components = append(doc.Components, c)
	}
	root := dependency{Ref: name}
	for _, c := range doc.Components {
		root.DependsOn = append(root.DependsOn, c.Ref)
	}
	doc.Dependencies = []dependency{root}
	return doc, nil
}

// library is one module. Its hash is that of go.sum: a SHA-256 over the module's file list ("h1").
func library(m *debug.Module) (component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := component{Ref: purl, Type: "library", Name: m.Path, Version: m.Version, PURL: purl}
	h1, ok := strings.CutPrefix(m.Sum, "h1:")
	if !ok {
		return c, nil
	}
	raw, err := base64.StdEncoding.DecodeString(h1)
	if err != nil {
		return component{}, fmt.Errorf("module %s: bad sum: %w", m.Path, err)
	}
	c.Hashes = []sum{{"SHA-256", hex.EncodeToString(raw)}}
	return c, nil
}
