// SPDX-License-Identifier: Apache-2.0

package policydata_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/engine/policytext"
	"portcullis/rules/policydata"
)

const rulesText = "package agent_policy\n\nimport rego.v1\n\nx := 1\n"

func sample() *policydata.Policy {
	return &policydata.Policy{
		Version: policydata.Version, Order: policydata.OrderFree, Strict: policydata.StrictDefault(),
		Sandbox: policydata.Sandbox{Name: "^web$", Storages: []policydata.Storage{{Driver: "ephemeral", MountPoint: "/x"}}},
		Common: policydata.Common{
			SharedDirs: []string{"/shared"}, OCIVersions: []string{"1.2.0"}, AppArmor: []string{""},
			BundlePath: "/b/$(container-id)", RootPath: "/r/$(container-id)/rootfs",
			Capabilities: map[string]policydata.Capabilities{"default": {Bounding: []string{"CAP_KILL"}}},
			Mounts:       map[string][]policydata.ExactMount{"default": {{Destination: "/proc", Source: "proc", Type: "proc"}}},
			Paths:        map[string]policydata.Paths{"default": {Optional: []string{"^/proc/x$"}}},
		},
		Containers: map[string]*policydata.Container{
			"web": {
				Type: policydata.TypeContainer,
				Args: []string{"a <b> & \u2028 \\ \"q\""}, BaseMounts: "default", Capabilities: "default", Paths: "default",
				Env:  policydata.Env{Fixed: []string{"A=1"}, Patterns: map[string]string{"B": "^x$"}},
				Exec: [][]string{{"true"}}, ArgMatches: map[string]policydata.Match{"0": {Pattern: "^a.*$"}},
			},
		},
	}
}

func TestTextIsTheSameEveryTime(t *testing.T) {
	first, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := sample().JSON()
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("differs (%v)", err)
		}
	}
	for _, line := range strings.Split(string(first), "\n") {
		if len(line) > 1000 {
			t.Errorf("line of %d bytes: %s", len(line), line)
		}
	}
}

func TestNothingIsNull(t *testing.T) {
	text, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	rest := strings.ReplaceAll(strings.ReplaceAll(string(text), `"fs_group": null`, ""), `"fs_group":null`, "")
	if strings.Contains(rest, "null") {
		t.Errorf("a list or map is null:\n%s", rest)
	}
	// The empty value of each field is of the field's own kind.
	if err := json.Unmarshal(text, &policydata.Policy{}); err != nil {
		t.Error(err)
	}
}

func TestParseReadsEveryForm(t *testing.T) {
	p := sample()
	full, err := p.Full(rulesText)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := p.Compact(rulesText)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	want := policytext.DigestOf([]byte(rulesText + "\n"))
	for form, test := range map[policytext.Form]struct {
		text   []byte
		digest policytext.Digest
	}{policytext.Full: {full, want}, policytext.Compact: {compact, want}, policytext.Bare: {bare, policytext.Digest{}}} {
		got, doc, err := policydata.Parse(test.text)
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if doc.Form != form || doc.Digest != test.digest {
			t.Errorf("form %s with digest %v, want %s with %v", doc.Form, doc.Digest, form, test.digest)
		}
		again, err := got.JSON()
		if err != nil || cmp.Diff(string(bare), string(again)) != "" {
			t.Errorf("%s: does not come back (%v): %s", form, err, cmp.Diff(string(bare), string(again)))
		}
	}
	if !bytes.HasPrefix(full, []byte(rulesText)) {
		t.Error("the full form does not begin with the rules")
	}
}

func TestDigestIsOfWhatPrecedesTheData(t *testing.T) {
	full, err := sample().Full(rulesText)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := bytes.Cut(full, []byte("policy_data := "))
	if !ok || policytext.DigestOf([]byte(before)) != policytext.DigestOf([]byte(rulesText+"\n")) {
		t.Error("digest differs from that of the bytes before policy_data")
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text string }{
		{"nothing", ""},
		{"rules alone", rulesText},
		{"a value that is no object", rulesText + "policy_data := []\n"},
		{"text after the value", string(good) + " x"},
		{"a second value", string(good) + string(good)},
		{"an unknown key", strings.Replace(string(good), `"version"`, `"vision"`, 1)},
		{"a key in another case", strings.Replace(string(good), `"version"`, `"Version"`, 1)},
		{"a key twice", strings.Replace(string(good), `"version":1`, `"version":1,"version":1`, 1)},
		{"another version", strings.Replace(string(good), `"version":1`, `"version":2`, 1)},
		{"upstream's shape", `{"containers": []}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := policydata.Parse([]byte(test.text)); err == nil {
				t.Error("is accepted")
			}
		})
	}
	if !policydata.IsUpstream([]byte(`{"containers": []}`)) {
		t.Error("upstream's shape is not seen")
	}
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policydata.Policy){
		"a pattern without an end":     func(p *policydata.Policy) { p.Sandbox.Name = "^web" },
		"a name of variables twice":    func(p *policydata.Policy) { p.Containers["web"].Env.Optional = map[string]string{"A": "^x$"} },
		"an entry that is no variable": func(p *policydata.Policy) { p.Containers["web"].Env.Fixed = []string{"A"} },
		"an unknown set":               func(p *policydata.Policy) { p.Containers["web"].Capabilities = "none" },
		"groups out of order":          func(p *policydata.Policy) { p.Containers["web"].OCI.Process.User.AdditionalGids = []uint32{2, 1} },
		"waiting for itself":           func(p *policydata.Policy) { p.Containers["web"].After = []policydata.After{{Container: "web"}} },
		"a name that splits a path":    func(p *policydata.Policy) { p.Containers["a/b"] = p.Containers["web"] },
		"a match for no argument":      func(p *policydata.Policy) { p.Containers["web"].ArgMatches["7"] = policydata.Match{Template: "x"} },
		"a match of two kinds": func(p *policydata.Policy) {
			p.Containers["web"].ArgMatches["0"] = policydata.Match{Template: "x", Pattern: "^x$"}
		},
		"a mount that the base has":     func(p *policydata.Policy) { p.Containers["web"].Mounts = map[string]policydata.Mount{"/proc": {}} },
		"an unknown order":              func(p *policydata.Policy) { p.Order = "" },
		"a root path without the id":    func(p *policydata.Policy) { p.Common.RootPath = "/r" },
		"another version":               func(p *policydata.Policy) { p.Version = 0 },
		"an unanchored path to copy to": func(p *policydata.Policy) { p.Requests.CopyFile = []string{"/run/.*"} },
		"a name of the image that is not its digest's": func(p *policydata.Policy) {
			digest := "sha256:" + strings.Repeat("ab", 32)
			p.Containers["web"].Image = policydata.Image{Digest: digest, Source: "web@" + digest, Also: []string{"web"}}
		},
		"an unknown level":   func(p *policydata.Policy) { p.Strict.Env = "free-for-all" },
		"devices below zero": func(p *policydata.Policy) { p.Containers["web"].VFIO.Count = -1 },
		"devices without number": func(p *policydata.Policy) {
			p.Containers["web"].VFIO = policydata.VFIO{Count: 1 << 40, Annotation: "^x$"}
		},
		"a copy for what is no directory of the guest": func(p *policydata.Policy) {
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountShared, Source: "x", Copied: "^/x$"}}
		},
		"a copy that is not anchored": func(p *policydata.Policy) {
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountLocal, Source: "x", Copied: "/x"}}
		},
		"a copy in a guest that shares files": func(p *policydata.Policy) {
			p.Sandbox.Storages = append(p.Sandbox.Storages, policydata.Storage{Driver: "virtio-fs", FSType: "virtiofs", MountPoint: "/shared"})
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountLocal, Source: "x", Copied: "^/x$"}}
		},
		"a copy where another file system is": func(p *policydata.Policy) {
			p.Sandbox.Storages = append(p.Sandbox.Storages, policydata.Storage{Driver: "9p", FSType: "9p", MountPoint: p.Common.SharedDirs[0] + "/"})
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountLocal, Source: "x", Copied: "^/x$"}}
		},
		"a copy where another file system is above": func(p *policydata.Policy) {
			p.Sandbox.Storages = append(p.Sandbox.Storages, policydata.Storage{Driver: "9p", FSType: "9p", MountPoint: path.Dir(p.Common.SharedDirs[0])})
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountLocal, Source: "x", Copied: "^/x$"}}
		},
		"a copy where mounts are not held to the policy": func(p *policydata.Policy) {
			p.Strict.Mounts = policydata.Optional
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountLocal, Source: "x", Copied: "^/x$"}}
		},
		"no directory to share":      func(p *policydata.Policy) { p.Common.SharedDirs = nil },
		"another sandbox":            func(p *policydata.Policy) { p.Containers["web"].Type = policydata.TypeSandbox },
		"an unknown namespace":       func(p *policydata.Policy) { p.Containers["web"].Namespaces = []string{"ip"} },
		"a storage without a driver": func(p *policydata.Policy) { p.Containers["web"].Storages = []policydata.Storage{{MountPoint: "/x"}} },
		"a storage at no path": func(p *policydata.Policy) {
			p.Containers["web"].Storages = []policydata.Storage{{Driver: "ephemeral", MountPoint: "x"}}
		},
		"waiting for an unknown state": func(p *policydata.Policy) {
			p.Containers["db"] = p.Containers["web"]
			p.Containers["web"].After = []policydata.After{{Container: "db", State: "ready"}}
		},
		"a base mount at no path": func(p *policydata.Policy) {
			p.Common.Mounts["default"] = []policydata.ExactMount{{Source: "proc", Type: "proc"}}
		},
		"a value of the image without a name": func(p *policydata.Policy) { p.Containers["web"].Env.Shadowed = []string{"x"} },
		"a signal beyond the last":            func(p *policydata.Policy) { p.Containers["web"].StopSignal = 65 },
		"a shared mount without a name": func(p *policydata.Policy) {
			p.Containers["web"].Mounts = map[string]policydata.Mount{"/x": {From: policydata.MountShared}}
		},
		"an unanchored key of a pattern": func(p *policydata.Policy) { p.Common.Annotations.Keys = map[string]string{"x": "^x$"} },
	} {
		t.Run(name, func(t *testing.T) {
			p := sample()
			change(p)
			if err := p.Validate(); !errors.Is(err, policydata.ErrInvalid) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestAnchored(t *testing.T) {
	for pattern, want := range map[string]bool{
		"^a$": true, "^(?:a|b)$": true, "^$": true, "^.*$": true, "^[a$]$": true,
		"a$": false, "^a": false, "^a|b$": false, "": false, "^": false, "(^a$)": false, "(?m)^a$": false, "^a$\n": false, "^(a": false,
	} {
		if err := policydata.Anchored(pattern); (err == nil) != want {
			t.Errorf("Anchored(%q) is %v, want %v", pattern, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	full, err := sample().Full(rulesText)
	if err != nil {
		f.Fatal(err)
	}
	compact, err := sample().Compact(rulesText)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{full, compact, []byte("{}"), []byte("\npolicy_data := {}")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, _, err := policydata.Parse(text)
		if err != nil {
			return
		}
		_ = p.Validate()
		once, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		q, _, err := policydata.Parse(once)
		if err != nil {
			t.Fatalf("own text does not parse: %v", err)
		}
		if twice, err := q.JSON(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("text changes on its way (%v)", err)
		}
	})
}
