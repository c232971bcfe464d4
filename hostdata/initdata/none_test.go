// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"portcullis/hostdata/initdata"
)

func TestCheckNoneOfCopies(t *testing.T) {
	tests := []struct {
		name string
		make func(own, other string) error
		want error
	}{
		{"nothing", func(own, other string) error { return nil }, nil},
		{"no directories", func(own, other string) error { return errors.Join(os.Remove(own), os.Remove(other)) }, nil},
		{"files that are no initdata", func(_, other string) error { return os.WriteFile(filepath.Join(other, "daemon.json"), nil, 0o600) }, nil},
		{"aa.toml", func(own, _ string) error { return os.WriteFile(filepath.Join(own, "aa.toml"), nil, 0o600) }, initdata.ErrAppeared},
		{"anything in the directory for initdata", func(own, _ string) error { return os.WriteFile(filepath.Join(own, ".x"), nil, 0o600) }, initdata.ErrAppeared},
		{"cdh.toml elsewhere", func(_, other string) error { return os.WriteFile(filepath.Join(other, "cdh.toml"), nil, 0o600) }, initdata.ErrAppeared},
		{"policy.rego elsewhere", func(_, other string) error { return os.WriteFile(filepath.Join(other, "policy.rego"), nil, 0o600) }, initdata.ErrAppeared},
		{"the document elsewhere", func(_, other string) error {
			return os.WriteFile(filepath.Join(other, "initdata.digest"), nil, 0o600)
		}, initdata.ErrAppeared},
		{"a link to nowhere", func(own, _ string) error { return os.Symlink("/nowhere", filepath.Join(own, "aa.toml")) }, initdata.ErrAppeared},
		{"a directory of that name", func(_, other string) error { return os.Mkdir(filepath.Join(other, "aa.toml"), 0o700) }, initdata.ErrAppeared},
		{"no directory in its place", func(own, _ string) error {
			return errors.Join(os.Remove(own), os.WriteFile(own, nil, 0o600))
		}, initdata.ErrRead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			own, other := t.TempDir(), t.TempDir()
			if err := tt.make(own, other); err != nil {
				t.Fatal(err)
			}
			if err := initdata.CheckNone(own, other); !errors.Is(err, tt.want) {
				t.Errorf("CheckNone: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCheckNoneOfDisks(t *testing.T) {
	failing := func(string) (io.ReadCloser, error) { return nil, syscall.EIO }
	tests := []struct {
		name     string
		contents map[string]string
		open     func(string) (io.ReadCloser, error)
		strict   error
		later    error
	}{
		{"no disk", nil, nil, nil, nil},
		{"a disk of data", map[string]string{"vda": "data of the pod's"}, nil, nil, nil},
		{"an empty disk", map[string]string{"vda": ""}, nil, nil, nil},
		{"a disk that begins as initdata does", map[string]string{"vda": "x", "sdb": "initdata and what is no length"}, nil, initdata.ErrAppeared, initdata.ErrAppeared},
		{"a part of a disk", map[string]string{"vda": "x", "vda1": "initdata"}, nil, initdata.ErrAppeared, initdata.ErrAppeared},
		{"not a disk", map[string]string{"null": "initdata"}, nil, nil, nil},
		{"a disk that cannot be read", map[string]string{"vda": "x"}, failing, initdata.ErrRead, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "dev"), 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range tt.contents {
				if err := os.WriteFile(filepath.Join(root, "dev", name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := initdata.Disks{Root: root, Open: tt.open}
			if d.Open == nil {
				d.Open = func(path string) (io.ReadCloser, error) { return os.Open(filepath.Join(root, path)) }
			}
			if err := d.CheckNone(true); !errors.Is(err, tt.strict) {
				t.Errorf("before anything: %v, want %v", err, tt.strict)
			}
			if err := d.CheckNone(false); !errors.Is(err, tt.later) {
				t.Errorf("later: %v, want %v", err, tt.later)
			}
		})
	}
}
