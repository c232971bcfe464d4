// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// The requests of the shared corpus that need no generated policy, and those of
// its two busybox containers, whose policy is simple enough to state here.
func TestCorpus(t *testing.T) {
	root := filepath.Dir(sharedFile(t, "corpus", "README.md"))
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skip("SKIPPED: the shared corpus is absent")
	}
	api := readAPI(t)
	if api == nil {
		t.Skip("SKIPPED: agent-api.json is absent")
	}
	for _, dir := range []string{"addarpneighbors", "copyfile", "createsandbox", "state/execprocess", "updateinterface", "updateroutes"} {
		t.Run(dir, func(t *testing.T) {
			cases := readCases(t, filepath.Join(root, "kata-4.1", dir, "testcases.json"))
			for form, j := range map[string]*rulestest.Judge{"full": judge(t, busybox(t)), "compact": judgeCompact(t, busybox(t))} {
				for _, c := range cases {
					r := rulestest.Request{Kind: c.Kind, Input: api.complete(c.Kind, c.Request)}
					d, err := j.Ask(context.Background(), r)
					if err != nil || d.Allowed != c.Allowed {
						t.Errorf("%s: %s: allowed is %v (%v), want %v: %s", form, c.Description, d.Allowed, err, c.Allowed, why(t, j, r))
					}
				}
			}
		})
	}
}

type corpusCase struct {
	Description string
	Allowed     bool
	Kind        string
	Request     map[string]any
}

func readCases(t *testing.T, path string) []corpusCase {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []corpusCase
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s has no cases", path)
	}
	return cases
}

// busybox is the policy of the corpus' pod of that name, with upstream's habits.
func busybox(t *testing.T) *policydata.Policy {
	t.Helper()
	p, s := load(t, "guest-pull", "compat-kata")
	p.Sandbox.Name, p.Sandbox.Namespace = "^busybox$", ""
	p.Containers[sandbox] = pause(s)
	for name, probe := range map[string]string{"first-test-container": "test1", "second-test-container": "test2"} {
		c := plain(s, name)
		c.Args = []string{"sleep", "3600"}
		c.Env.Fixed = []string{"CONTAINER_NAME=" + name, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		c.Exec = [][]string{{probe}}
		c.OCI.Process.User.AdditionalGids = []uint32{0, 10}
		p.Containers[name] = c
	}
	return p
}

// complete gives a request the fields it leaves out, as the agent does. What the
// policy sees of CopyFile is not the message, so it gets its fields by hand.
func (a *agentAPI) complete(kind string, request map[string]any) map[string]any {
	out := a.zero("grpc."+kind, request)
	if kind == "CopyFileRequest" {
		out = map[string]any{"symlink_target": nil, "file_size": 0, "file_mode": 0, "dir_mode": 0, "uid": 0, "gid": 0, "offset": 0}
		maps.Copy(out, request)
	}
	return out
}

func (a *agentAPI) zero(message string, given map[string]any) map[string]any {
	out := map[string]any{}
	for _, field := range a.Messages[message] {
		name := field.Name
		if name == "type" {
			name = "type_"
		}
		out[name] = a.value(field.Type, given[name])
	}
	return out
}

func (a *agentAPI) value(typ string, given any) any {
	if element, ok := strings.CutPrefix(typ, "repeated "); ok {
		list := []any{}
		items, _ := given.([]any)
		for _, item := range items {
			list = append(list, a.value(element, item))
		}
		return list
	}
	if _, isMessage := a.Messages[typ]; isMessage {
		object, ok := given.(map[string]any)
		if !ok {
			return nil
		}
		return a.zero(typ, object)
	}
	if given != nil {
		return given
	}
	switch {
	case strings.HasPrefix(typ, "map<"):
		return map[string]any{}
	case typ == "string":
		return ""
	case typ == "bool":
		return false
	case typ == "bytes":
		return []any{}
	}
	return 0
}

// With the strict defaults the same requests give the same decisions once they
// are whole, and once CreateSandbox and the probes carry what a runtime sends.
func TestCorpusStrict(t *testing.T) {
	api := readAPI(t)
	if api == nil {
		t.Skip("SKIPPED: agent-api.json is absent")
	}
	path := sharedFile(t, "corpus", "kata-4.1", "state", "execprocess", "testcases.json")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skip("SKIPPED: the shared corpus is absent")
	}
	p := busybox(t)
	_, s := load(t, "guest-pull")
	p.Strict = policydata.StrictDefault()
	for name, c := range p.Containers {
		if name != sandbox {
			c.Env.Templates = map[string]string{"HOSTNAME": s.Generate.Container.EnvTemplates["HOSTNAME"]}
		}
	}
	e, j := emulator(p), judgeCompact(t, p)
	if err := j.SetState(context.Background(), map[string]any{"sandbox": ""}); err != nil {
		t.Fatal(err)
	}
	names := map[any]string{}
	for _, c := range readCases(t, path) {
		r := e.Complete(rulestest.Request{Kind: c.Kind, Input: api.complete(c.Kind, c.Request)})
		if oci, ok := r.Input["OCI"].(map[string]any); ok {
			names[r.Input["container_id"]], _ = oci["Annotations"].(map[string]any)["io.kubernetes.cri.container-name"].(string)
		}
		if c.Kind == "ExecProcessRequest" {
			r = e.CompleteExec(names[r.Input["container_id"]], r)
		}
		d, err := j.Ask(context.Background(), r)
		if err != nil || d.Allowed != c.Allowed {
			t.Errorf("%s: allowed is %v (%v), want %v: %s", c.Description, d.Allowed, err, c.Allowed, why(t, j, r))
		}
		if c.Kind == "CreateContainerRequest" {
			start := rulestest.Request{Kind: "StartContainerRequest", Input: map[string]any{"container_id": r.Input["container_id"]}}
			if d, err := j.Ask(context.Background(), start); err != nil || !d.Allowed {
				t.Fatalf("start after %s: %v", c.Description, err)
			}
		}
	}
}
