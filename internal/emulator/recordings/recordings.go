// SPDX-License-Identifier: Apache-2.0

// Package recordings reads requests that real kubelets, container runtimes and
// shims sent, for tests that hold our own work to them.
package recordings

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/shareddata"
)

// Request is one recorded request, as a policy sees it.
type Request struct {
	Kind    string         `json:"kind"`
	Allowed bool           `json:"allowed"`
	Input   map[string]any `json:"request"`
}

// Pod is the recording of one pod.
type Pod struct {
	Set, Name string // folder and file without extension
	Manifest  []byte
	Requests  []Request
}

// Folder finds the folder of recordings, as [shareddata.Dir] does.
func Folder(t testing.TB) string {
	t.Helper()
	return shareddata.Dir(t, "genuine")
}

// Sets are the folders of a recordings folder that hold requests.
func Sets(t testing.TB, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*", "*.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		if set := filepath.Base(filepath.Dir(file)); !strings.HasPrefix(set, "wire-") && !slices.Contains(out, set) {
			out = append(out, set)
		}
	}
	return out
}

// copyNumber is what tells the pods of one workload apart: "web.1".
var copyNumber = regexp.MustCompile(`\.[0-9]$`)

// Pods reads the pods of a set. One that sent nothing is left out.
func Pods(t testing.TB, folder, set string) []Pod {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, set, "*.jsonl.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s (%v)", set, err)
	}
	var out []Pod
	for _, file := range files {
		p := Pod{Set: set, Name: strings.TrimSuffix(filepath.Base(file), ".jsonl.gz")}
		p.Requests = read(t, file)
		manifest := copyNumber.ReplaceAllString(p.Name, "") + ".yaml"
		if p.Manifest, err = os.ReadFile(filepath.Join(folder, "manifests", manifest)); err != nil {
			t.Fatal(err)
		}
		if len(p.Requests) > 0 {
			out = append(out, p)
		}
	}
	return out
}

func read(t testing.TB, file string) []Request {
	t.Helper()
	var out []Request
	err := eachLine(file, func(line []byte) error {
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eachLine calls f with each line of a compressed file that is not empty.
func eachLine(file string, f func([]byte) error) error {
	raw, err := os.Open(file)
	if err != nil {
		return err
	}
	defer raw.Close()
	plain, err := gzip.NewReader(raw)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	lines := bufio.NewReader(plain)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			if err := f(line); err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
}

// Annotations are those of a recorded CreateContainer, nil for other requests.
func (r Request) Annotations() map[string]any {
	oci, _ := r.Input["OCI"].(map[string]any)
	out, _ := oci["Annotations"].(map[string]any)
	return out
}

// Identity is the name and the UID of a recorded pod.
func (p Pod) Identity() (name, uid string) {
	for _, r := range p.Requests {
		if a := r.Annotations(); a != nil {
			name, _ = a["io.kubernetes.cri.sandbox-name"].(string)
			uid, _ = a["io.kubernetes.cri.sandbox-uid"].(string)
			return name, uid
		}
	}
	return "", ""
}
