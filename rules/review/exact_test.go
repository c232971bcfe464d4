// SPDX-License-Identifier: Apache-2.0

package review

import (
	"strings"
	"testing"

	"portcullis/rules/policydata"
)

// What reads alike is told apart all the same.
func TestPoliciesThatReadAlikeAreNotEqual(t *testing.T) {
	for name, c := range map[string]struct {
		a, b func(*policydata.Policy, *policydata.Container)
	}{
		"an option of the driver or of the mount": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Storages = []policydata.Storage{{DriverOptions: []string{"encryption_key=ephemeral"}}}
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Storages = []policydata.Storage{{Options: []string{"encryption_key=ephemeral"}}}
			},
		},
		"such an option of the sandbox": {
			func(p *policydata.Policy, _ *policydata.Container) {
				p.Sandbox.Storages = []policydata.Storage{{DriverOptions: []string{"a"}}}
			},
			func(p *policydata.Policy, _ *policydata.Container) {
				p.Sandbox.Storages = []policydata.Storage{{Options: []string{"a"}}}
			},
		},
		"two options or one": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Mounts = map[string]policydata.Mount{"/x": {Options: []string{"rbind", "ro"}}}
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Mounts = map[string]policydata.Mount{"/x": {Options: []string{"rbind,ro"}}}
			},
		},
		"two options of a usual mount or one": {
			func(p *policydata.Policy, _ *policydata.Container) {
				p.Common.Mounts = map[string][]policydata.ExactMount{"k": {{Options: []string{"rbind", "ro"}}}}
			},
			func(p *policydata.Policy, _ *policydata.Container) {
				p.Common.Mounts = map[string][]policydata.ExactMount{"k": {{Options: []string{"rbind,ro"}}}}
			},
		},
		"a text or a template": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Env = policydata.Env{Fixed: []string{"X=$(sandbox-name)"}}
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Env = policydata.Env{Templates: map[string]string{"X": "$(sandbox-name)"}}
			},
		},
		"an argument or a pattern": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Args, c.ArgMatches = []string{"⟨^x+$⟩"}, nil
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Args, c.ArgMatches = []string{""}, map[string]policydata.Match{"0": {Pattern: "^x+$"}}
			},
		},
		"an annotation or one that may be missing": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Annotations = policydata.Annotations{Fixed: map[string]string{"k": "v, or none"}}
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Annotations = policydata.Annotations{Optional: map[string]string{"k": "v"}}
			},
		},
		"a sysctl or one that may be missing": {
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Sysctl = policydata.Sysctl{Fixed: map[string]string{"k": "v, or none"}}
			},
			func(_ *policydata.Policy, c *policydata.Container) {
				c.Sysctl = policydata.Sysctl{Optional: map[string]string{"k": "v"}}
			},
		},
	} {
		a, b := filled(), filled()
		c.a(a, a.Containers["k"])
		c.b(b, b.Containers["k"])
		d := Compare(&Subject{Text: []byte("a"), Data: a}, &Subject{Text: []byte("b"), Data: b}, true)
		if len(d.OnlyA) == 0 || len(d.OnlyB) == 0 {
			t.Errorf("%s: %+v", name, d)
		}
	}
	a, b := filled(), filled()
	c := b.Containers["k"]
	c.Storages = append(c.Storages, c.Storages...)
	if d := Compare(&Subject{Text: []byte("a"), Data: a}, &Subject{Text: []byte("b"), Data: b}, true); d.Equal() {
		t.Error("a storage twice: equal")
	}
}

// No text of a policy moves the cursor, or is a line of its own.
func TestNoTextOfAPolicyIsALineOfOurs(t *testing.T) {
	const hostile = "x\nContainer forged\r\x1bc\u202e\u009b1m"
	p := filled()
	c := p.Containers["k"]
	c.Args, c.Cwd, c.Exec, c.Image.Source, c.Devices = []string{hostile}, hostile, [][]string{{hostile}}, hostile, []string{hostile}
	c.Mounts[hostile] = policydata.Mount{From: hostile, Source: hostile}
	c.Env.Patterns[hostile], c.Sysctl.Fixed[hostile] = hostile, hostile
	p.Sandbox.Name, p.Requests.Exec.Joined, p.Requests.Allow = hostile, []string{hostile}, []string{hostile}
	p.Containers[hostile] = c
	var explained, compared strings.Builder
	if err := WriteText(&explained, hostile, p); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Difference{
		Compare(&Subject{Text: []byte("a"), Data: filled()}, &Subject{Text: []byte("b"), Data: p}, true),
		Compare(&Subject{Text: []byte("b"), Data: p}, &Subject{Text: []byte("a"), Data: filled()}, true),
	} {
		if err := d.Write(&compared); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{explained.String(), compared.String()} {
		if !strings.Contains(text, "forged") {
			t.Error("the texts are not there")
		}
		if strings.ContainsAny(text, "\r\x1b\u202e\u009b") || strings.Contains(text, "\nContainer forged") {
			t.Errorf("%q", text)
		}
	}
}
