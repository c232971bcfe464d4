// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/runtime/task/v2"

	"portcullis/ci/lab/recording"
)

// spec is what the shim itself needs of a specification.
type spec struct {
	Annotations map[string]string
	Mounts      []struct{ Source, Type string }
}

func readSpec(bundle string) (spec, error) {
	var s spec
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// endsAtOnce tells whether the plan wants this container to succeed as soon as it runs, as init containers do.
func endsAtOnce(plan, bundle string) bool {
	s, err := readSpec(bundle)
	if err != nil {
		return false
	}
	return recording.ReadPlan(plan).EndsAtOnce(s.Annotations["io.kubernetes.cri.sandbox-namespace"],
		s.Annotations["io.kubernetes.cri.sandbox-name"], s.Annotations["io.kubernetes.cri.container-name"])
}

// recorder writes raw records: DIR/ID/container.json and DIR/ID/exec-N.json.
type recorder struct{ dir string }

func (r recorder) container(c *task.CreateTaskRequest) error {
	config, err := os.ReadFile(filepath.Join(c.Bundle, "config.json"))
	if err != nil {
		return err
	}
	s, err := readSpec(c.Bundle)
	if err != nil {
		return err
	}
	raw := recording.RawContainer{ID: c.ID, Sandbox: s.Annotations["io.kubernetes.cri.sandbox-id"], Namespace: s.Annotations["io.kubernetes.cri.sandbox-namespace"],
		Pod: s.Annotations["io.kubernetes.cri.sandbox-name"], Name: s.Annotations["io.kubernetes.cri.container-name"], Terminal: c.Terminal, Spec: config, Pid: os.Getpid(),
		Files: map[string][]recording.File{}}
	for _, m := range c.Rootfs {
		raw.Rootfs = append(raw.Rootfs, m.Type)
	}
	for _, m := range s.Mounts {
		if m.Type != "bind" {
			continue
		}
		files, err := recording.Tree(m.Source)
		if err != nil {
			return fmt.Errorf("files of %s: %w", m.Source, err)
		}
		raw.Files[m.Source] = files
	}
	return r.write(c.ID, "container.json", raw)
}

func (r recorder) exec(e *task.ExecProcessRequest, n int) error {
	return r.write(e.ID, fmt.Sprintf("exec-%d.json", n), recording.RawExec{Terminal: e.Terminal, Stdin: e.Stdin != "", Process: e.Spec.GetValue()})
}

// write puts a record in place whole: the driver polls the folder.
func (r recorder) write(id, name string, v any) error {
	dir := filepath.Join(r.dir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	whole := filepath.Join(dir, name)
	if err := os.WriteFile(whole+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(whole+".tmp", whole)
}
