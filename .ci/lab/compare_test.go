// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"portcullis/ci/lab/recording"
)

func written(t *testing.T, spec string) string {
	t.Helper()
	dir := t.TempDir()
	p := recording.Pod{Manifest: "a.yaml", Namespace: "default", Pod: "a", Sandbox: recording.Container{CRI: json.RawMessage(`{}`), Spec: json.RawMessage(spec)}}
	if err := recording.Write(filepath.Join(dir, "pair.jsonl.gz"), []recording.Pod{p}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCompareTellsWhatChanged(t *testing.T) {
	kept := written(t, `{"mounts":[{"options":["ro"]}],"x":1}`)
	if err := compare([]string{kept, written(t, `{"mounts":[{"options":["ro"]}],"x":1}`)}); err != nil {
		t.Errorf("the same recordings: %v", err)
	}
	for _, fresh := range []string{written(t, `{"mounts":[{"options":["rw"]}],"x":1}`), written(t, `{"mounts":[{"options":["ro"]}]}`), t.TempDir()} {
		if err := compare([]string{kept, fresh}); !errors.Is(err, errChanged) {
			t.Errorf("changed recordings: %v", err)
		}
	}
	if err := compare([]string{t.TempDir(), t.TempDir()}); err == nil || errors.Is(err, errChanged) {
		t.Errorf("no recordings at all: %v", err)
	}
}
