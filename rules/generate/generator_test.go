// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/images"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden is the part of a policy that its manifest decides.
type golden struct {
	Containers map[string]*policydata.Container
	Sandbox    policydata.Sandbox
	Sets       map[string][]string // bounding capabilities beside the default's
}

func goldenText(t *testing.T, m *generate.Manifest, made []*policydata.Policy, warnings []*generate.Finding, err error) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, w := range warnings {
		out.WriteString("warning: " + w.Error() + "\n")
	}
	if err != nil {
		found, only := generate.Findings(err)
		if !only {
			t.Fatal(err)
		}
		for _, f := range found {
			out.WriteString("refused: " + f.Error() + "\n")
		}
	}
	for i, p := range made {
		g := golden{maps.Clone(p.Containers), p.Sandbox, map[string][]string{}}
		// What settings alone decide is theirs to test.
		g.Sandbox.Storages = nil
		pause := *g.Containers[policydata.SandboxContainer]
		pause.Annotations.Patterns, pause.Mounts, pause.Sysctl.Optional = nil, nil, nil
		g.Containers[policydata.SandboxContainer] = &pause
		for name, set := range p.Common.Capabilities {
			if name != "default" {
				g.Sets[name] = set.Bounding
			}
		}
		raw, err := json.MarshalIndent(g, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(m.Pods()[i].Name() + "\n" + string(raw) + "\n")
	}
	return out.Bytes()
}

func TestManifestsPeopleWriteYieldTheirPolicyOrOneClearRefusal(t *testing.T) {
	files, err := filepath.Glob("testdata/pods/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d manifests, want at least 30 (%v)", len(files), err)
	}
	images, store := generatetest.Images(t, "testdata/images.json"), generatetest.Store(t, "testdata/images.json")
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			m, made, warnings, err := policiesOf(t, file, images)
			text := goldenText(t, m, made, warnings, err)
			path := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(path, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(text)); diff != "" {
				t.Errorf("policy differs (-want +got):\n%s", diff)
			}
			if name := filepath.Base(strings.TrimSuffix(file, ".yaml")); len(made) > 0 && !nobodyTakes[name] {
				lives := emulated(t, file, emulatortest.Options(t, settings.DefaultPlatform, store))
				allowsItsPods(t, settings.DefaultPlatform+"/"+name, made, lives)
				allowsItsPodsFull(t, settings.DefaultPlatform+"/"+name, made, lives)
			}
		})
	}
}

func policiesOf(t *testing.T, file string, images generate.Images) (*generate.Manifest, []*policydata.Policy, []*generate.Finding, error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse(filepath.Base(file), text, generate.ReadOptions{})
	if err != nil {
		return nil, nil, nil, err
	}
	made, warnings, err := generatetest.Policies(m, generatetest.Settings(t, settings.DefaultPlatform), images)
	return m, made, warnings, err
}

// allowsItsPodsFull runs the lives of pods through the rules in the full form too.
func allowsItsPodsFull(t *testing.T, name string, made []*policydata.Policy, lives [][]rulestest.Request) {
	t.Helper()
	for i, p := range made {
		full, err := p.Full(rules.Text())
		if err != nil {
			t.Fatal(err)
		}
		judge, err := rulestest.New(string(full), nil)
		if err != nil {
			t.Fatal(err)
		}
		allowsLife(t, name, judge, lives[i])
	}
}

// why are the findings for a denied request.
func why(t *testing.T, judge *rulestest.Judge, r rulestest.Request) string {
	t.Helper()
	input, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := judge.Eval(context.Background(), "findings."+r.Kind, input)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(findings)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestEveryPlatformAllowsItsPods(t *testing.T) {
	images, store := generatetest.Images(t, "testdata/images.json"), generatetest.Store(t, "testdata/images.json")
	for _, platform := range settings.Platforms() {
		for _, name := range []string{"web-deployment", "volumes", "volumes-twice", "downward", "security"} {
			t.Run(platform+"/"+name, func(t *testing.T) {
				made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/"+name+".yaml"), generatetest.Settings(t, platform), images)
				if err != nil {
					t.Fatal(err)
				}
				for _, kind := range []shim.Kind{shim.Go, shim.RuntimeRS} {
					if !emulatortest.Emulates(platform) {
						continue
					}
					o := emulatortest.Options(t, platform, store)
					o.Shim.Kind = kind
					allowsItsPods(t, platform+"/"+name, made, emulated(t, "testdata/pods/"+name+".yaml", o))
				}
			})
		}
	}
}

func TestOrderedPodsStartInTheirOrder(t *testing.T) {
	images := generatetest.Images(t, "testdata/images.json")
	made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/init-chain.yaml"), generatetest.Settings(t, settings.DefaultPlatform, "ordered"), images)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]policydata.After{
		policydata.SandboxContainer: nil,
		"fetch":                     {{Container: policydata.SandboxContainer, State: policydata.Started}},
		"proxy":                     {{Container: "fetch", State: policydata.Succeeded}},
		"migrate":                   {{Container: "proxy", State: policydata.Started}},
		"app":                       {{Container: "migrate", State: policydata.Succeeded}},
		"metrics":                   {{Container: "migrate", State: policydata.Succeeded}},
	}
	got := map[string][]policydata.After{}
	for name, c := range made[0].Containers {
		got[name] = c.After
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
}

// By default order is enforced where it means something: where there are init containers.
func TestOrderIsEnforcedWhereThereAreInitContainers(t *testing.T) {
	images := generatetest.Images(t, "testdata/images.json")
	for _, test := range []struct {
		manifest string
		dropIns  []string
		want     policydata.Order
	}{
		{"init-chain", nil, policydata.OrderEnforced},
		{"init-chain", []string{"unordered"}, policydata.OrderFree},
		{"init-chain", []string{"compat-kata"}, policydata.OrderFree},
		{"web-pinned", nil, policydata.OrderFree},
		{"web-pinned", []string{"ordered"}, policydata.OrderEnforced},
	} {
		for _, platform := range settings.Platforms() {
			made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/"+test.manifest+".yaml"), generatetest.Settings(t, platform, test.dropIns...), images)
			if err != nil || made[0].Order != test.want {
				t.Errorf("%s with %v for %s: %v, want %s", test.manifest, test.dropIns, platform, err, test.want)
			}
		}
	}
}

func TestManifestsOfTheCorpusGenerate(t *testing.T) {
	count := 0
	generatetest.EachPod(t, func(name, path, images string) {
		count++
		made, _, err := generatetest.Policies(generatetest.Manifest(t, path), generatetest.Settings(t, settings.DefaultPlatform), generatetest.Images(t, images))
		if err != nil || len(made) != 1 {
			t.Errorf("%s: %d policies, %v", path, len(made), err)
		}
		if !nobodyTakes[name] {
			lives := emulated(t, path, emulatortest.Options(t, settings.DefaultPlatform, generatetest.Store(t, images)))
			allowsItsPods(t, "corpus/"+name, made, lives)
		}
	})
	if count != 15 {
		t.Errorf("found %d manifests, want 15", count)
	}
}

func TestTheSameManifestGivesTheSameBytes(t *testing.T) {
	var first []byte
	for range 5 {
		made, _, err := generatetest.Policies(generatetest.Manifest(t, "testdata/pods/volumes.yaml"), generatetest.Settings(t, settings.DefaultPlatform), generatetest.Images(t, "testdata/images.json"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := made[0].Compact(rules.Text())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = text
		}
		if !bytes.Equal(first, text) {
			t.Fatal("two runs differ")
		}
	}
}

func FuzzManifestToPolicy(f *testing.F) {
	files, _ := filepath.Glob("testdata/pods/*.yaml")
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	images := generatetest.Images(f, "testdata/images.json")
	s := generatetest.Settings(f, settings.DefaultPlatform)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := generate.Parse("fuzz.yaml", text, generate.ReadOptions{})
		if err != nil {
			if _, only := generate.Findings(err); !only {
				t.Fatalf("reading failed otherwise than by a finding: %v", err)
			}
			return
		}
		made, _, err := generatetest.Policies(m, s, images)
		if errors.Is(err, policydata.ErrInvalid) {
			t.Fatalf("made an inconsistent policy: %v", err)
		}
		for i, p := range m.Pods() {
			if i >= len(made) {
				return
			}
			if err := m.Annotate(p, "io.katacontainers.config.agent.policy", "cGFja2FnZQ=="); err != nil {
				continue
			}
		}
		if _, err := m.Text(); err != nil {
			if _, only := generate.Findings(err); !only {
				t.Fatalf("writing failed otherwise than by a finding: %v", err)
			}
		}
	})
}

// Making a policy is reading: the manifest's text and its pods are as before, and the next policy is the same. Only LockDigests
// writes.
func TestPolicyLeavesTheManifestAsItIs(t *testing.T) {
	m := generatetest.Manifest(t, "testdata/pods/volumes.yaml")
	before, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	from := images.NewOpener([]images.Store{generatetest.Store(t, "testdata/images.json")}, images.Options{})
	g := generate.New(generatetest.Settings(t, settings.DefaultPlatform), from, nil, generate.Options{})
	p := m.Pods()[0]
	policy := func() string {
		t.Helper()
		made, _, err := g.Policy(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		data, err := made.JSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := policy()
	if after, err := m.Text(); err != nil || !bytes.Equal(before, after) || policy() != first {
		t.Errorf("the policy changed what it was made from: %v", err)
	}
	if strings.Contains(first, "@sha256:") {
		t.Error("an image is named by its digest before that is written")
	}
	if err := m.LockDigests(t.Context(), p, from); err != nil {
		t.Fatal(err)
	}
	if after, err := m.Text(); err != nil || !bytes.Contains(after, []byte("@sha256:")) || !strings.Contains(policy(), "@sha256:") {
		t.Errorf("the digests are not in text and policy: %v", err)
	}
}
