// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"portcullis/hostdata/initdata"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// pod is a policy and what a runtime asks for the pod.
type pod struct {
	policy   []byte
	cases    []byte // one JSON object a line: kind, request, allowed, case
	initdata *initdata.Document
	fragment []byte // a signed fragment that gives the container updated another image
	updates  []byte // what a host asks once it is in force, as cases
}

// secret is in each container's environment, and must not leave the guest.
const secret = "hunter2-NEVER-LEAVES"

// containers is how many the pod has besides its sandbox.
const containers = 10

// newPod makes the policy of a pod of ten containers, its requests, and some that it must not allow.
func newPod(t *testing.T) pod {
	t.Helper()
	policy := tenContainers(t)
	key := newReleaseKey(t, policy)
	text, err := policy.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := initdata.New(initdata.SHA256, map[string]string{
		initdata.PolicyKey: string(text), initdata.AAKey: "[token_configs]\n", initdata.CDHKey: "socket = \"unix:///run/cdh.sock\"\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	var cases bytes.Buffer
	e := rulestest.Emulator{Policy: policy, Pod: rulestest.DefaultPod(policy)}
	for _, r := range e.All() {
		add(t, &cases, r, "")
	}
	for name, r := range forbidden(e) {
		add(t, &cases, r, name)
	}
	fragment, updates := newUpdate(t, key, e)
	return pod{text, cases.Bytes(), doc, fragment, updates}
}

// add writes a request; one with a name is to be denied.
func add(t *testing.T, out *bytes.Buffer, r rulestest.Request, name string) {
	t.Helper()
	line, err := json.Marshal(map[string]any{"kind": r.Kind, "request": r.Input, "allowed": name == "", "case": name})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(append(line, '\n'))
}

// forbidden are requests of a host that wants more.
func forbidden(e rulestest.Emulator) map[string]rulestest.Request {
	shell := e.ExecProcess("container-0", []string{"/bin/sh"})
	again := e.CreateContainer("container-0")
	stranger := e.CreateContainer("container-1")
	stranger.Input = maps.Clone(stranger.Input)
	stranger.Input["container_id"] = strings.Repeat("ab", 32)
	file := rulestest.Request{Kind: "CopyFileRequest", Input: map[string]any{"path": "/run/portcullis/journal.json", "file_size": 0,
		"file_mode": 0o100644, "dir_mode": 0, "uid": 0, "gid": 0, "offset": 0, "data": []any{}}}
	return map[string]rulestest.Request{"a shell": shell, "a container twice": again, "another id": stranger, "policyd's journal": file}
}

// tenContainers is a policy on a platform that pulls images in the guest.
func tenContainers(t *testing.T) *policydata.Policy {
	t.Helper()
	s, err := settings.Load("guest-pull")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Policy()
	if err != nil {
		t.Fatal(err)
	}
	p.Sandbox.Name, p.Sandbox.Namespace = "^guest$", "default"
	p.Containers[policydata.SandboxContainer] = sandbox(s)
	for i := range containers {
		name := fmt.Sprintf("container-%d", i)
		p.Containers[name] = container(s, name)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return p
}

func sandbox(s *settings.Settings) *policydata.Container {
	return &policydata.Container{
		Annotations: policydata.Annotations{Patterns: s.Generate.Sandbox.Annotations},
		Args:        []string{"/pause"}, BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env:        policydata.Env{Fixed: []string{"PATH=/usr/bin:/bin"}},
		Image:      policydata.Image{From: policydata.GuestPull, Source: "pause"},
		Mounts:     mounts(s.Generate.Sandbox.Mounts, "ro"),
		Namespaces: []string{"ipc", "uts", "mount"}, NoNewPrivs: true, ReadonlyRoot: true,
		Sysctl: policydata.Sysctl{Optional: s.Generate.Sandbox.Sysctl},
		Type:   policydata.TypeSandbox, OCI: policydata.OCI{Process: policydata.OCIProcess{User: policydata.User{UID: 65535, GID: 65535, AdditionalGids: []uint32{65535}}}},
	}
}

func container(s *settings.Settings, name string) *policydata.Container {
	digest := "sha256:" + strings.Repeat("5c", 32)
	image := "registry.example/" + name + "@" + digest
	env := []string{"NAME=" + name, "PASSWORD=" + secret, "PATH=/usr/bin:/bin"}
	for v := range 8 {
		env = append(env, fmt.Sprintf("VARIABLE_%d=value-%d", v, v))
	}
	return &policydata.Container{
		Args: []string{"/bin/" + name}, BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env:        policydata.Env{Fixed: env},
		Exec:       [][]string{{"/bin/probe", name}},
		OCI:        policydata.OCI{Annotations: policydata.OCIAnnotations{ImageName: image}, Process: policydata.OCIProcess{User: policydata.User{AdditionalGids: []uint32{0}}}},
		Image:      policydata.Image{Digest: digest, From: policydata.GuestPull, Source: image},
		Mounts:     mounts(s.Generate.Container.Mounts, "rw"),
		Namespaces: []string{"ipc", "uts", "mount"},
		Sysctl:     policydata.Sysctl{Optional: s.Generate.Container.Sysctl},
		Type:       policydata.TypeContainer,
	}
}

// mounts fills the placeholders of a template's mounts.
func mounts(template map[string]policydata.Mount, rw string) map[string]policydata.Mount {
	fill := strings.NewReplacer("$(rw)", rw, "$(privileged-rw)", "ro")
	out := maps.Clone(template)
	for destination, m := range out {
		m.Options = strings.Split(fill.Replace(strings.Join(m.Options, "\n")), "\n")
		out[destination] = m
	}
	return out
}
