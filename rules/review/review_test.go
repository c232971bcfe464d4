// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/rules"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
	"portcullis/rules/settings"
)

// shop is the policy_data that package explain's tests make.
func shop(tb testing.TB) *policydata.Policy {
	tb.Helper()
	text, err := os.ReadFile("../explain/testdata/shop.json")
	if err != nil {
		tb.Fatal(err)
	}
	p, _, err := policydata.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// policyOf makes the policy of a manifest's first pod, on the default platform where none is named.
func policyOf(tb testing.TB, manifest, platform, over string, images generate.Images) (*policydata.Policy, []*generate.Finding) {
	tb.Helper()
	m, err := generate.Parse("shop.yaml", []byte(manifest), generate.ReadOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := settings.Load(cmp.Or(platform, settings.DefaultPlatform), settings.DropIn{Name: "test", Text: []byte(over)})
	if err != nil {
		tb.Fatal(err)
	}
	var configs generate.Configs
	if err := configs.Add(m); err != nil {
		tb.Fatal(err)
	}
	p, warnings, err := generate.New(s, images, &configs, generate.Options{}).Policy(context.Background(), m.Pods()[0])
	if err != nil {
		tb.Fatal(err)
	}
	return p, warnings
}

func load(tb testing.TB, text string) *review.Subject {
	tb.Helper()
	s, err := review.Load(context.Background(), "pod.rego", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// full is the subject of a policy_data with this project's rules.
func full(tb testing.TB, p *policydata.Policy) *review.Subject {
	tb.Helper()
	text, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	return load(tb, string(text))
}

// with is a subject with other data under the same rules, without compiling them again.
func with(tb testing.TB, s *review.Subject, p *policydata.Policy) *review.Subject {
	tb.Helper()
	text, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	other := *s
	other.Data, other.Text = p, text
	return &other
}

func page(tb testing.TB, s *review.Subject, o review.PageOptions) string {
	tb.Helper()
	var out bytes.Buffer
	if err := s.WritePage(&out, o); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func TestPageOfFortyContainersIsSmall(t *testing.T) {
	p := shop(t)
	for i := range 40 - len(p.Containers) {
		c := *p.Containers["web"]
		p.Containers[fmt.Sprintf("web-%d", i)] = &c
	}
	var decisions []review.Decision
	for i := range review.MaxDecisions {
		decisions = append(decisions, review.Decision{Line: i, Kind: "CreateContainerRequest", Count: 1,
			Reason: "OCI.Process.Args[1]: got --listen=:22, wanted --listen=:8080", Change: "regenerate the policy with genpolicy"})
	}
	text := page(t, full(t, p), review.PageOptions{Trace: "policy.jsonl", Decisions: decisions})
	t.Logf("%d bytes", len(text))
	if len(text) >= 500_000 {
		t.Errorf("%d bytes, want less than 500 kB", len(text))
	}
}

func TestPageStandsAlone(t *testing.T) {
	text := page(t, full(t, shop(t)), review.PageOptions{Decisions: []review.Decision{{Kind: "X", Count: 1, Reason: "<script>alert(1)</script>"}}})
	for _, banned := range []string{"<script", "src=", "@import", "url(", "http://", "https://", "javascript:"} {
		if strings.Contains(text, banned) {
			t.Errorf("the page holds %q", banned)
		}
	}
	for _, needed := range []string{`<html lang="en">`, "<main ", "<header", "<nav ", "<footer", `class="skip"`, "Content-Security-Policy", `name="viewport"`, "@media print", "<h1>"} {
		if !strings.Contains(text, needed) {
			t.Errorf("the page lacks %q", needed)
		}
	}
	level := 0
	for _, m := range regexp.MustCompile(`<h([1-6])`).FindAllStringSubmatch(text, -1) {
		next := int(m[1][0] - '0')
		if next > level+1 {
			t.Errorf("a heading of level %d follows one of level %d", next, level)
		}
		level = next
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if ids[m[1]] {
			t.Errorf("id %s occurs twice", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if !ids[m[1]] {
			t.Errorf("a link goes to #%s, which is not there", m[1])
		}
	}
}

func TestPageSaysWhatEachContainerMay(t *testing.T) {
	text := page(t, full(t, shop(t)), review.PageOptions{})
	flat := strings.ReplaceAll(text, "<wbr>", "")
	for _, words := range []string{
		"/bin/web --listen=:8080 --log=json", "registry.example/shop/web@sha256:0303", "bound by digest", "image not bound",
		"user 1000, group 1000, also groups 2000", "/bin/web --check", "root filesystem is read-only", "block storage of volume data",
		"LOG_LEVEL", "net", "Nobody, once it is active", "What the host may choose", "OCI.Process.OOMScoreAdj", "CAP", "/proc/kcore",
	} {
		if !strings.Contains(flat, words) {
			t.Errorf("the page does not say %q", words)
		}
	}
	if strings.Contains(text, "correct-horse") {
		t.Error("the page shows a secret")
	}
	if shown := page(t, full(t, shop(t)), review.PageOptions{Secrets: true}); !strings.Contains(shown, "correct-horse-battery") {
		t.Error("the page hides what was asked for")
	}
	if unbound, bound := strings.Index(text, `id="container-metrics"`), strings.Index(text, `id="container-web"`); unbound > bound {
		t.Error("an image that is not bound does not come first")
	}
}

// Every warning is given for a policy that deserves it, and for no other.
func TestWarnings(t *testing.T) {
	tests := []struct {
		name, words string
		level       review.Level
		change      func(*policydata.Policy)
	}{
		{"tag", "named by a tag", review.Grave, func(p *policydata.Policy) { p.Containers["web"].Image.Digest = "" }},
		{"host's image", "the host shares the root", review.Grave, func(p *policydata.Policy) { p.Containers["web"].Image.From = policydata.Host }},
		{"command", "“sh” in every container", review.Look, func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"sh"}} }},
		{"pattern", "matches “^ls.*$”", review.Grave, func(p *policydata.Policy) { p.Requests.Exec.Joined = []string{"^ls.*$"} }},
		{"input", "standard input of processes", review.Look, func(p *policydata.Policy) { p.Requests.WriteStream = true }},
		{"output", "Output of all processes", review.Note, func(p *policydata.Policy) { p.Requests.ReadStream = true }},
		{"listed", "GetMetricsRequest is allowed", review.Look, func(p *policydata.Policy) { p.Requests.Allow = []string{"GetMetricsRequest"} }},
		{"namespace", "namespace is not bound", review.Note, func(p *policydata.Policy) { p.Sandbox.Namespace = "" }},
		{"name", "name of the pod is not bound", review.Note, func(p *policydata.Policy) { p.Sandbox.Name = "^.*$" }},
		{"free image", "strict.image", review.Grave, func(p *policydata.Policy) { p.Strict.Image = policydata.Free }},
		{"missing mounts", "strict.mounts", review.Look, func(p *policydata.Policy) { p.Strict.Mounts = policydata.Optional }},
		{"capability", "beyond the usual: CAP_SYS_ADMIN", review.Look, func(p *policydata.Policy) {
			p.Common.Capabilities["admin"] = policydata.Capabilities{Effective: []string{"CAP_SYS_ADMIN"}}
			p.Containers["web"].Capabilities = "admin"
		}},
		{"unmasked", "No path of the kernel is masked", review.Look, func(p *policydata.Policy) {
			p.Common.Paths["none"] = policydata.Paths{}
			p.Containers["web"].Paths = "none"
		}},
		{"stdin", "write to its standard input", review.Look, func(p *policydata.Policy) { p.Containers["web"].Stdin = true }},
		{"secret", "API_TOKEN", review.Grave, func(p *policydata.Policy) {
			p.Containers["web"].Env.Fixed = append(p.Containers["web"].Env.Fixed, "API_TOKEN=x")
		}},
		{"any value", "X may have any value", review.Look, func(p *policydata.Policy) { p.Containers["web"].Env.Optional = map[string]string{"X": "^.*$"} }},
		{"device", "content of block devices comes from the host: /dev/x", review.Grave, func(p *policydata.Policy) { p.Containers["web"].Devices = []string{"/dev/x"} }},
	}
	a := full(t, shop(t))
	before := a.Warnings()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := shop(t)
			test.change(p)
			given := func(list []review.Warning) int {
				n := 0
				for _, w := range list {
					if strings.Contains(w.Text, test.words) && w.Level == test.level {
						n++
					}
				}
				return n
			}
			after := with(t, a, p).Warnings()
			if given(after) <= given(before) {
				t.Errorf("no such warning among %+v", after)
			}
			if !slices.IsSortedFunc(after, func(a, b review.Warning) int { return rank(a) - rank(b) }) {
				t.Error("the most severe do not come first")
			}
		})
	}
}

func rank(w review.Warning) int {
	return map[review.Level]int{review.Grave: 0, review.Look: 1, review.Note: 2}[w.Level]
}

func TestPoliciesOfOtherMakes(t *testing.T) {
	tests := []struct {
		name, text string
		rules      review.Rules
		words      []string
	}{
		{"allow all", must(rules.Default("allow-all")), review.Unknown, []string{"the host may run any container", "the host may run any command", "Whatever it holds"}},
		{"deny all", must(rules.Default("deny-all-but-setpolicy")), review.Unknown, []string{"the host may replace this policy", "have to be read themselves"}},
		{"waiver", "package agent_policy\n\ndefault AllowRequestsFailingPolicy := true\n", review.Unknown, []string{"denials are only warnings", "The policy has no rule for it."}},
	}
	tests = append(tests, struct {
		name, text string
		rules      review.Rules
		words      []string
	}{"closed", "package agent_policy\n\ndefault SetPolicyRequest := false\ndefault StatsContainerRequest := false\n\nStatsContainerRequest { input.container_id == \"a\" }\n", review.Unknown,
		[]string{"Nobody, once it is active", "Decided by rules that this program does not know."}})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, test.text)
			if s.Rules != test.rules {
				t.Errorf("rules %s, want %s", s.Rules, test.rules)
			}
			text := strings.ReplaceAll(page(t, s, review.PageOptions{}), "<wbr>", "")
			for _, words := range test.words {
				if !strings.Contains(text, words) {
					t.Errorf("the page does not say %q", words)
				}
			}
		})
	}
}

func must(text string, err error) string {
	if err != nil {
		panic(err)
	}
	return text
}

func TestCompareSaysWhatChanged(t *testing.T) {
	tests := []struct {
		name         string
		change       func(*policydata.Policy)
		onlyB, onlyA []string // "subject: words", a prefix of it
	}{
		{"argument", func(p *policydata.Policy) { p.Containers["web"].Args[1] = "--listen=:22" },
			[]string{"container web: runs /bin/web --listen=:22"}, []string{"container web: runs /bin/web --listen=:8080"}},
		{"variable", func(p *policydata.Policy) { p.Containers["web"].Env.Fixed[1] = "DB_PASSWORD=hunter2" },
			[]string{"container web: variable DB_PASSWORD = (hidden, 7 characters)"}, []string{"container web: variable DB_PASSWORD = (hidden, 21 characters)"}},
		{"command", func(p *policydata.Policy) {
			p.Containers["web"].Exec = append(p.Containers["web"].Exec, []string{"sh"})
		},
			[]string{"container web: command: sh"}, nil},
		{"writable root", func(p *policydata.Policy) { p.Containers["web"].ReadonlyRoot = false },
			[]string{"container web: no longer held to: root filesystem is read-only"}, nil},
		{"container", func(p *policydata.Policy) { delete(p.Containers, "metrics") }, nil, []string{"container metrics: runs /metrics-agent"}},
		{"image", func(p *policydata.Policy) {
			p.Containers["web"].Image.Source, p.Containers["web"].Image.Digest = "registry.example/shop/web:2", ""
		}, []string{"container web: image registry.example/shop/web:2 (not bound", "container web: no longer held to: its image is bound"}, []string{"container web: image registry.example/shop/web@sha256"}},
		{"request", func(p *policydata.Policy) { p.Requests.ReadStream = true }, []string{"requests: output of processes to the host"}, nil},
		{"strictness", func(p *policydata.Policy) { p.Strict.Mounts = policydata.Optional }, []string{"pod: Mounts may be missing"}, nil},
		{"hidden values of one length", func(p *policydata.Policy) { p.Containers["web"].Env.Fixed[2] = "LOG_LEVEL=warn" },
			[]string{"container web: variable LOG_LEVEL = (hidden, 4 characters), not the same"}, []string{"container web: variable LOG_LEVEL = (hidden, 4 characters), not the same"}},
		{"user", func(p *policydata.Policy) { p.Containers["web"].OCI.Process.User.UID = 0 },
			[]string{"container web: as root (user 0), group 1000"}, []string{"container web: as user 1000, group 1000"}},
		{"capability", func(p *policydata.Policy) {
			p.Common.Capabilities["net"] = policydata.Capabilities{Effective: []string{"CAP_NET_ADMIN"}}
			p.Containers["web"].Capabilities = "net"
		}, []string{"container web: capability CAP_NET_ADMIN (effective)"}, []string{"container web: capability CAP_CHOWN (bounding)"}},
		{"mount", func(p *policydata.Policy) {
			m := p.Containers["web"].Mounts["/etc/shop"]
			m.Options = []string{"rbind", "rprivate", "rw"}
			p.Containers["web"].Mounts["/etc/shop"] = m
		}, []string{"container web: mount /etc/shop from the host: config (bind: rbind,rprivate,rw)"},
			[]string{"container web: mount /etc/shop from the host: config (bind: rbind,ro,rprivate)"}},
		{"mount that may be missing", func(p *policydata.Policy) {
			m := p.Containers["web"].Mounts["/tmp"]
			m.MayBeMissing = true
			p.Containers["web"].Mounts["/tmp"] = m
		}, []string{"container web: mount /tmp from /run/kata-containers/sandbox/ephemeral/tmp (bind: rbind,rprivate,rw), or none"}, []string{"container web: mount /tmp"}},
		{"new privileges", func(p *policydata.Policy) { p.Containers["web"].NoNewPrivs = false }, []string{"container web: no longer held to: gains no new privileges"}, nil},
		{"namespace", func(p *policydata.Policy) { p.Sandbox.Namespace = "" }, []string{"pod: any namespace"}, []string{"pod: namespace prod"}},
		{"order", func(p *policydata.Policy) { p.Order = policydata.OrderEnforced }, nil, []string{"pod: no longer held to: containers come in the order"}},
		{"command everywhere", func(p *policydata.Policy) { p.Requests.Exec.Joined = []string{"^ls .*$"} }, []string{"requests: commands in every container that match ^ls .*$"}, nil},
		{"request by name", func(p *policydata.Policy) { p.Requests.Allow = []string{"GetMetricsRequest"} }, []string{"requests: GetMetricsRequest, whatever it holds"}, nil},
		{"file", func(p *policydata.Policy) {
			m := p.Containers["web"].Mounts["/etc/shop"]
			m.Contents = &policydata.Contents{Files: map[string]policydata.File{"a": {SHA256: "11"}}}
			p.Containers["web"].Mounts["/etc/shop"] = m
		}, nil, []string{"container web: no longer held to: file a of /etc/shop has the content"}},
		{"a container as a whole, its lists by name", func(p *policydata.Policy) { p.Containers["other"] = p.Containers["metrics"] },
			[]string{"container other: runs /metrics-agent", "container other: variables PATH, HOSTNAME, ", "container other: capabilities CAP_CHOWN, CAP_DAC_OVERRIDE", "container other: usual mounts /proc, /dev, ", "container other: mounts /dev/shm, "}, nil},
		{"masked path", func(p *policydata.Policy) {
			paths := p.Common.Paths["default"]
			paths.Masked = paths.Masked[1:]
			p.Common.Paths["default"] = paths
		}, []string{"container web: no longer held to: /proc/acpi is masked"}, nil},
	}
	a := full(t, shop(t))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := shop(t)
			test.change(p)
			b := with(t, a, p)
			d := review.Compare(a, b, false)
			has(t, "only B", d.OnlyB, test.onlyB)
			has(t, "only A", d.OnlyA, test.onlyA)
			back := review.Compare(b, a, false)
			has(t, "only A, the other way", back.OnlyA, test.onlyB)
			if d.Equal() {
				t.Error("said to be equal")
			}
			var out bytes.Buffer
			if err := d.Write(&out); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "correct-horse") {
				t.Errorf("a secret is shown:\n%s", &out)
			}
		})
	}
}

// has holds that a side says these things; with none wanted, it says nothing.
func has(t *testing.T, side string, groups []review.Group, want []string) {
	t.Helper()
	var said []string
	for _, g := range groups {
		for _, words := range g.Words {
			said = append(said, g.Subject+": "+words)
		}
	}
	if len(want) == 0 && len(said) > 0 {
		t.Errorf("%s says %q, want nothing", side, said)
	}
	for _, w := range want {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, w) }) {
			t.Errorf("%s says %q, want %q", side, said, w)
		}
	}
}

func TestCompareOfFormsAndOtherRules(t *testing.T) {
	p := shop(t)
	compact, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	if d := review.Compare(full(t, p), load(t, string(compact)), false); !d.Equal() {
		t.Errorf("full and compact form differ: %+v", d)
	}
	if d := review.Compare(full(t, p), full(t, p), false); !d.Same || !d.Equal() {
		t.Errorf("a policy differs from itself: %+v", d)
	}
	d := review.Compare(full(t, p), load(t, must(rules.Default("allow-all"))), false)
	if len(d.Uncertain) < 2 {
		t.Errorf("certain of too much: %q", d.Uncertain)
	}
	has(t, "only B", d.OnlyB, []string{"requests: ExecProcessRequest, whatever it holds"})
}

// Whatever key of policy_data changes, the comparison says that something does.
func TestCompareMissesNothing(t *testing.T) {
	raw, err := shop(t).JSON()
	if err != nil {
		t.Fatal(err)
	}
	a := full(t, shop(t))
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	tried := 0
	leaves(tree, "", func(path string, set func(any), old any) {
		if strings.Contains(path, ".vfio.") && !strings.HasSuffix(path, ".count") {
			return // of no device
		}
		switch v := old.(type) {
		case string:
			set(v + "x")
		case bool:
			set(!v)
		case float64:
			set(v + 1)
		default:
			return
		}
		defer set(old)
		changed, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := policydata.Parse(changed)
		if err != nil {
			return // a changed key or enumeration
		}
		tried++
		s := *a
		s.Data, s.Text = p, changed
		if d := review.Compare(a, &s, false); d.Equal() {
			t.Errorf("a change of %s is not shown", path)
		}
	})
	t.Logf("%d changes", tried)
	if tried < 200 {
		t.Errorf("only %d changes were tried", tried)
	}
}

func leaves(v any, path string, visit func(path string, set func(any), old any)) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			visit(path+"."+key, func(n any) { v[key] = n }, child)
			leaves(child, path+"."+key, visit)
		}
	case []any:
		for i, child := range v {
			visit(fmt.Sprintf("%s[%d]", path, i), func(n any) { v[i] = n }, child)
			leaves(child, fmt.Sprintf("%s[%d]", path, i), visit)
		}
	}
}

// Text that a Secret may have given shows nowhere: kubelet's expansion carries it into other variables.
func TestTemplatesAndPatternsShowNoSecrets(t *testing.T) {
	p := shop(t)
	env := &p.Containers["web"].Env
	env.Templates = map[string]string{"URL": "https://u:correct-horse-battery@$(sandbox-name).$(sandbox-namespace)", "NAME": "$(sandbox-name)"}
	env.Patterns = map[string]string{"LOGIN": "^correct-horse-battery@[0-9.]+$", "IP": "^[0-9.]+$"}
	text := strings.ReplaceAll(page(t, full(t, p), review.PageOptions{}), "<wbr>", "")
	if strings.Contains(text, "correct-horse") {
		t.Error("the page shows a secret")
	}
	for _, want := range []string{"…$(sandbox-name)…$(sandbox-namespace)", "<code>$(sandbox-name)</code>", "a hidden pattern", "an IPv4 address"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if shown := page(t, full(t, p), review.PageOptions{Secrets: true}); !strings.Contains(strings.ReplaceAll(shown, "<wbr>", ""), "correct-horse-battery@[0-9.]") {
		t.Error("the page hides what was asked for")
	}
}
