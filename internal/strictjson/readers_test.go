// SPDX-License-Identifier: Apache-2.0

package strictjson_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portcullis/agentproto"
	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/engine/journal"
	"portcullis/engine/policytext"
	"portcullis/engine/trace"
	"portcullis/images/layout"
	"portcullis/images/registry"
	"portcullis/internal/emulator"
	"portcullis/measure/eventlog"
	"portcullis/measure/evidence"
	"portcullis/measure/record"
	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
	"portcullis/rules/statement"
)

// reader reads JSON that comes from outside. Text is taken, and refused with member there twice.
type reader struct {
	name, text, member string
	read               func(t *testing.T, text []byte) error
}

func readers(t *testing.T) []reader {
	t.Helper()
	p := shortPolicy(t)
	compact, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	full, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	compile := func(t *testing.T, text []byte) error {
		c, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Compile(t.Context(), text)
		return err
	}
	return []reader{
		{"a compact policy in the guest", string(compact), `"order":"free"`, compile},
		{"a full policy in the guest", string(full), `"order":"free"`, compile},
		{"a policy for tools", string(full), `"version":1`, func(_ *testing.T, text []byte) error { _, _, err := policydata.Parse(text); return err }},
		{"a policy's parts", string(compact), `"version":1`, func(_ *testing.T, text []byte) error { _, err := policytext.Split(text); return err }},
		{"a policy to be explained", string(compact), `"version":1`, func(_ *testing.T, text []byte) error { _, err := explain.New(text); return err }},
		{"the state of a policy", `{"pstate":{"a":1}}`, `"a":1`, func(t *testing.T, text []byte) error { return restore(t, compact, text) }},
		{"a journal", `{"version":1,"boot_id":"x"}`, `"boot_id":"x"`, readJournal},
		{"a request", `{"container_id":"a","exec_id":""}`, `"container_id":"a"`, readRequest},
		{"a nested request", `{"OCI":{"Root":{"Path":"/","Readonly":true}}}`, `"Path":"/"`, readCreate},
		{"a line of a dump", `{"kind":"StatsContainerRequest","request":{"container_id":"a"}}`, `"container_id":"a"`, readDump},
		{"a dump that is a list", `[{"kind":"StatsContainerRequest","request":{"container_id":"a"}}]`, `"container_id":"a"`, readDump},
		{"an agent's old line", `["ep":"StatsContainerRequest",{"container_id":"a"}],`, `"container_id":"a"`, readDump},
		{"issuers", `[{"did":"","feed":"f","key":"","may":[],"minimum_svn":0}]`, `"feed":"f"`, func(_ *testing.T, text []byte) error { _, err := fragment.ReadIssuers(text); return twice(err) }},
		{"an index of images", `{"schemaVersion":2,"manifests":[]}`, `"schemaVersion":2`, readLayout},
		{"credentials of registries", `{"auths":{"a.example":{"auth":"YTpi"}}}`, `"auth":"YTpi"`, readCredentials},
		{"a fact of a record", `{"image":"a"}`, `"image":"a"`, func(_ *testing.T, text []byte) error {
			_, err := record.Parse(record.Domain + " created " + string(text))
			return twice(err)
		}},
		{"an event log", "\x1e{\"recnum\":0}\n", `"recnum":0`, func(_ *testing.T, text []byte) error { _, err := eventlog.Decode(text); return twice(err) }},
		{"reference values", `{"pcr_0":["` + strings.Repeat("00", 32) + `"]}`, `"pcr_0":["` + strings.Repeat("00", 32) + `"]`, func(_ *testing.T, text []byte) error { _, err := evidence.ParseReference(text); return err }},
		{"settings of the existing tool", `{"request_defaults":{}}`, `"request_defaults":{}`, func(_ *testing.T, text []byte) error {
			_, _, err := settings.FromUpstream(settings.DropIn{Name: "x", Text: text})
			return twice(err)
		}},
		{"a patch of them", `[{"op":"add","path":"/x","value":{"a":1}}]`, `"a":1`, func(_ *testing.T, text []byte) error {
			_, _, err := settings.FromUpstream(settings.DropIn{Name: "x", Text: []byte("{}")}, settings.DropIn{Name: "y", Text: text})
			return twice(err)
		}},
		{"a manifest", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}`, `"k":"v"`, func(_ *testing.T, text []byte) error {
			_, err := generate.Parse("x.json", text, generate.ReadOptions{})
			return twice(err)
		}},
		{"a policy of images", `{"default":[{"type":"reject"}]}`, `"type":"reject"`, func(_ *testing.T, text []byte) error { _, err := generate.CompactImagePolicy(text); return err }},
		{"a statement", `{"_type":"x","subject":[]}`, `"_type":"x"`, func(_ *testing.T, text []byte) error { _, err := statement.Parse(text); return twice(err) }},
		{"a change of a simulation", `{"a":1}`, `"a":1`, func(_ *testing.T, text []byte) error {
			_, err := emulator.ParseChange("OCI.Process=" + string(text))
			return err
		}},
	}
}

// twice leaves of an error only that a key is there twice: what else is wrong with a short example is another test's.
func twice(err error) error {
	if err != nil && regexp.MustCompile("twice|already|in canonical form").MatchString(err.Error()) {
		return err
	}
	return nil
}

func shortPolicy(t *testing.T) *policydata.Policy {
	t.Helper()
	s, err := settings.Load(settings.DefaultPlatform)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Policy()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func restore(t *testing.T, policy, state []byte) error {
	t.Helper()
	c, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Compile(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(p, engine.Options{})
	defer e.Close()
	return e.Restore(t.Context(), p, engine.State{Possible: []json.RawMessage{state}})
}

func readJournal(t *testing.T, text []byte) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, "x")
	if err != nil {
		return err
	}
	_, _, err = j.Load()
	return twice(err)
}

func readMessage(t *testing.T, kind string, text []byte) error {
	t.Helper()
	m, ok := agentproto.MessageByName(kind)
	if !ok {
		t.Fatalf("no %s", kind)
	}
	_, err := agentproto.FromInput(m, text)
	return err
}

func readRequest(t *testing.T, text []byte) error { return readMessage(t, "WaitProcessRequest", text) }
func readCreate(t *testing.T, text []byte) error {
	return readMessage(t, "CreateContainerRequest", text)
}

func readDump(_ *testing.T, text []byte) error {
	r := trace.NewReader(strings.NewReader(string(text)))
	for {
		switch _, err := r.Next(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func readLayout(t *testing.T, text []byte) error {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": text} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := layout.Open(dir)
	if err == nil {
		err = s.Close()
	}
	return err
}

func readCredentials(t *testing.T, text []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := registry.DockerConfig(file)
	return err
}

func TestNoReaderTakesAKeyTwice(t *testing.T) {
	for _, r := range readers(t) {
		t.Run(r.name, func(t *testing.T) {
			if err := r.read(t, []byte(r.text)); err != nil {
				t.Fatalf("refused with one of each: %v", err)
			}
			if strings.Count(r.text, r.member) != 1 {
				t.Fatalf("%s is not in %.200s", r.member, r.text)
			}
			if err := r.read(t, []byte(strings.Replace(r.text, r.member, r.member+","+r.member, 1))); err == nil {
				t.Error("a key twice is taken")
			}
		})
	}
}

// plainReaders are files that read JSON by another reader, and why they may.
var plainReaders = map[string]string{
	"cmd/genpolicy/learn.go":             "what this program has written",
	"cmd/policyctl/report.go":            "of a dump, which was read strictly, and the engine's own state",
	"engine/fragment/between.go":         "what this package has written",
	"engine/jsonvalue/jsonvalue.go":      "a reader that looks at it itself",
	"engine/rest/input.go":               "text that was checked before",
	"engine/trace/reader.go":             "the brackets around entries that are read strictly",
	"rules/admission/webhook/handler.go": "of a review, which was read strictly",
	"rules/explain/ours.go":              "what this package has written",
	"rules/generate/decode.go":           "of YAML, whose keys were looked at",
	"rules/generate/edit.go":             "of YAML, whose keys were looked at",
	"rules/generate/manifest.go":         "of YAML, whose keys were looked at",
	"rules/hostchosen.go":                "a file of the program",
	"rules/learn/learn.go":               "of a dump, which was read strictly",
	"rules/learn/table.go":               "what this package has written",
	"rules/policydata/encode.go":         "what this package has written",
	"rules/prove/input.go":               "what this package has written",
	"rules/prove/sequence.go":            "what this package has written",
	"rules/rehearsal.go":                 "a file of the program",
	"rules/requests.go":                  "a file of the program",
	"rules/settings/describe.go":         "what this package has written",
	"rules/settings/settings.go":         "what this package has written",
}

// Whoever reads JSON in another way says here why.
func TestJSONIsReadStrictly(t *testing.T) {
	plain := regexp.MustCompile(`\bjson\.(Unmarshal|NewDecoder|Valid)\(`)
	seen := map[string]bool{}
	for _, dir := range []string{"agentproto", "cmd", "engine", "hostdata", "images", "measure", "rules"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if name := filepath.ToSlash(strings.TrimPrefix(path, "../../")); plain.Match(text) {
				seen[name] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range seen {
		if plainReaders[name] == "" && !strings.HasPrefix(name, "images/rootfs/") {
			t.Errorf("%s reads JSON that may have a key twice", name)
		}
	}
	for name := range plainReaders {
		if !seen[name] {
			t.Errorf("%s reads none", name)
		}
	}
}
