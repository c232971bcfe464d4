// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"portcullis/hostdata/initdata"
)

// What is compared and what is judged are one reading: a pipe gives its text once, and a file may change.
func TestWhatIsBoundIsReadOnce(t *testing.T) {
	policy := "package agent_policy\n\ndefault StatsContainerRequest := true\n"
	document, err := initdata.New(initdata.SHA256, map[string]string{initdata.PolicyKey: policy})
	if err != nil {
		t.Fatal(err)
	}
	annotation, err := document.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	manifest := "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    " + initdata.Annotation + ": " + annotation + "\n"
	for name, of := range map[string]struct {
		text string
		read func(path string) (boundText, error)
	}{
		"policy":                 {policy, func(path string) (boundText, error) { return readBoundPolicy(path, "sha256") }},
		"initdata":               {string(document.Bytes()), readBoundInitdata},
		"manifest":               {manifest, readBoundInitdata},
		"earlier policy":         {policy, readBound},
		"earlier initdata":       {string(document.Bytes()), readBound},
		"manifest of an earlier": {manifest, readBound},
	} {
		t.Run(name, func(t *testing.T) {
			file, pipe := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "pipe")
			if err := os.WriteFile(file, []byte(of.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			want, err := of.read(file)
			if err != nil || string(want.policy) != policy {
				t.Fatal(want, err)
			}
			go func() { _ = os.WriteFile(pipe, []byte(of.text), 0o600) }()
			if got, err := of.read(pipe); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		})
	}
}

// So is what a pod is to be, which is compared with the report and with the record.
func TestThePodIsReadOnce(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(pipe, []byte(keptPolicy), 0o600) }()
	f := podFlags{pod: pipe, complete: true}
	pod, bound, err := f.expected(t.Context())
	if err != nil || len(pod.Containers) == 0 || !pod.Complete || string(bound.policy) != keptPolicy {
		t.Fatalf("%+v, %+v, %v", pod, bound, err)
	}
	if again, other, err := f.expected(t.Context()); err != nil || !reflect.DeepEqual(again, pod) || !reflect.DeepEqual(other, bound) {
		t.Errorf("%+v, %+v, %v; want what was read", again, other, err)
	}
}
