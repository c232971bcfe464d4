// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
)

// Pod is one pod's recording as it is kept: a line of JSON in the file of its combination.
type Pod struct {
	Manifest   string      `json:"manifest"` // file below manifests/
	Namespace  string      `json:"namespace"`
	Pod        string      `json:"pod"`
	Sandbox    Container   `json:"sandbox"`
	Containers []Container `json:"containers"` // in order of creation
}

// Container is a container, or the sandbox, which has no name and no execs.
type Container struct {
	Name     string            `json:"name,omitempty"`
	ID       string            `json:"id"`
	Terminal bool              `json:"terminal,omitempty"`
	Rootfs   []string          `json:"rootfs"` // types of the mounts that make the root; empty means that the bundle has it
	CRI      json.RawMessage   `json:"cri"`    // the kubelet's RunPodSandboxRequest, or CreateContainerRequest's config
	Spec     json.RawMessage   `json:"spec"`   // config.json as containerd wrote it
	Files    map[string][]File `json:"files"`  // what lies at the source of each bind mount
	Execs    []Exec            `json:"execs,omitempty"`
}

// Exec is one process that probes and hooks added.
type Exec struct {
	Terminal bool            `json:"terminal,omitempty"`
	Stdin    bool            `json:"stdin,omitempty"`
	Process  json.RawMessage `json:"process"`
}

// Finish makes a pod's recording out of the raw one; name is what the pod is called in it.
func (r Raw) Finish(manifest, namespace, pod, name string) (Pod, error) {
	found := r.Pod(namespace, pod)
	sandbox := found[""]
	if sandbox == nil {
		return Pod{}, fmt.Errorf("pod %s/%s: no sandbox was recorded", namespace, pod)
	}
	p := Pod{Manifest: manifest, Namespace: namespace, Pod: pod}
	for _, call := range r.Calls {
		c := r.Containers[call.ID]
		if call.Method == "ExecSync" || c == nil || c != found[c.Name] {
			continue
		}
		request, err := edit(call.Request, plainValues)
		if err != nil {
			return Pod{}, fmt.Errorf("pod %s/%s: %w", namespace, pod, err)
		}
		done := Container{Name: c.Name, ID: c.ID, Terminal: c.Terminal, Rootfs: c.Rootfs, CRI: request, Spec: c.Spec, Files: c.Files, Execs: distinct(c.Execs)}
		if c == sandbox {
			p.Sandbox = done
		} else {
			p.Containers = append(p.Containers, done)
		}
	}
	return p.steady(name)
}

// distinct leaves one of the processes that are the same, in order of their text: probes come any number of times.
func distinct(all []RawExec) []Exec {
	seen := map[string]bool{}
	var kept []Exec
	for _, e := range all {
		if key := fmt.Sprint(e.Terminal, e.Stdin, string(e.Process)); !seen[key] {
			seen[key] = true
			kept = append(kept, Exec{e.Terminal, e.Stdin, e.Process})
		}
	}
	sort.Slice(kept, func(i, j int) bool { return string(kept[i].Process) < string(kept[j].Process) })
	return kept
}

// steady replaces what differs between runs, then recomputes the sizes and digests of the files whose text changed.
func (p Pod) steady(name string) (Pod, error) {
	text, err := encode(p)
	if err != nil {
		return Pod{}, err
	}
	var done Pod
	if err := json.Unmarshal(replacements(p, name).apply(text), &done); err != nil {
		return Pod{}, fmt.Errorf("pod %s: %w", p.Pod, err)
	}
	for _, c := range append([]Container{done.Sandbox}, done.Containers...) {
		for _, files := range c.Files {
			for i := range files {
				files[i].measure()
			}
		}
	}
	for _, c := range append([]*Container{&done.Sandbox}, pointers(done.Containers)...) {
		if err := c.sortRandom(); err != nil {
			return Pod{}, fmt.Errorf("pod %s: %w", p.Pod, err)
		}
	}
	return done, nil
}

func pointers(all []Container) []*Container {
	var p []*Container
	for i := range all {
		p = append(p, &all[i])
	}
	return p
}

func (f *File) measure() {
	if f.Text == "" {
		return
	}
	digest := sha256.Sum256([]byte(f.Text))
	f.Size, f.SHA256 = int64(len(f.Text)), hex.EncodeToString(digest[:])
}

// encode gives JSON without HTML's escapes: the recordings are read by people.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}
