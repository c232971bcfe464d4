// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/images"
	"portcullis/internal/emulator"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/imagestest"
	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// hint is a case for one of the words on what to change: a pod that runs otherwise than its policy was made, and the mend that the
// words name, which is applied and must lead to every request being allowed.
type hint struct {
	advice string // how the words begin
	// The pod as the cluster runs it: the manifest with the pair's first text replaced by its second, what --change and --remove say,
	// commands and further requests.
	manifest  [2]string
	base      [2]string // the same in the manifest that the policy is made of
	change    []string
	remove    []string
	exec      string
	again     string         // the last request of this kind comes twice
	without   string         // the first request of this kind does not come
	double    string         // the last item of this list of web's creation comes twice
	extra     string         // a request of this kind for web comes at the end
	platform  string         // on which it runs; empty for guest-pull
	emptyDirs shim.EmptyDirs // where they are not as the platform's
	// The mend: settings over the platform's; else, with a manifest, the policy made again from it, and also the change undone; else
	// what the host adds taken away.
	settings string
	made     []string // drop-ins that the policy is made with before the mend
}

const hintManifest = `apiVersion: v1
kind: Pod
metadata:
  name: shop
  namespace: prod
  annotations: {example.com/team: shop}
spec:
  hostname: front
  securityContext:
    runAsUser: 1000
    runAsGroup: 1000
    supplementalGroups: [2000]
    sysctls: [{name: net.core.somaxconn, value: "1024"}]
  containers:
  - name: web
    image: registry.example/shop/web:1.4
    command: ["/bin/web"]
    args: ["--listen=:8080"]
    workingDir: /srv
    env:
    - {name: LOG_LEVEL, value: info}
    - {name: MODE, value: fast}
    readinessProbe:
      exec: {command: ["/bin/web", "--check"]}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [CHOWN]}
    volumeMounts:
    - {name: config, mountPath: /etc/shop, readOnly: true}
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
  - name: other
    image: registry.example/shop/web:1.4
  volumes:
  - name: config
    configMap: {name: shop}
  - name: scratch
    emptyDir: {}
  - name: memory
    emptyDir: {medium: Memory}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop, namespace: prod}
data: {shop.conf: "currency = EUR"}
`

var hintStore = func() *imagestest.Store {
	s := imagestest.NewStore()
	config := images.Config{Env: []string{"PATH=/bin"}, Entrypoint: []string{"/bin/web"}, WorkingDir: "/"}
	for _, name := range []string{"registry.example/shop/web:1.4", "registry.example/shop/web:1.5"} {
		s.Add(name, imagestest.WithFiles(config, nil))
	}
	return s
}()

type hintImages struct{}

func (hintImages) Image(ctx context.Context, reference string) (*images.Image, error) {
	return images.NewOpener([]images.Store{hintStore}, images.Options{}).Image(ctx, reference)
}

// hintBench makes and judges policies. What several cases need is made once.
type hintBench struct {
	compiler   *engine.Compiler
	policies   map[string][]byte             // by manifest and drop-ins
	explainers map[string]*explain.Explainer // by policy
	undone     map[string]bool               // policies under which the unchanged pod is allowed
}

func newHintBench(t *testing.T) *hintBench {
	t.Helper()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		t.Fatal(err)
	}
	b := &hintBench{compiler, map[string][]byte{}, map[string]*explain.Explainer{}, map[string]bool{}}
	t.Cleanup(func() {
		for _, why := range b.explainers {
			why.Close()
		}
	})
	return b
}

func (b *hintBench) explainer(t *testing.T, policy []byte) *explain.Explainer {
	t.Helper()
	if why := b.explainers[string(policy)]; why != nil {
		return why
	}
	why, err := explain.New(policy)
	if err != nil {
		t.Fatal(err)
	}
	b.explainers[string(policy)] = why
	return why
}

// policy makes the policy of a manifest.
func (b *hintBench) policy(t *testing.T, manifest string, dropIns ...string) []byte {
	t.Helper()
	key := manifest + strings.Join(dropIns, "\x00")
	if b.policies[key] != nil {
		return b.policies[key]
	}
	var over []settings.DropIn
	for _, text := range dropIns {
		over = append(over, settings.DropIn{Name: "mend", Text: []byte(text)})
	}
	s, err := settings.Load("guest-pull", over...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse("shop.yaml", []byte(manifest), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var configs generate.Configs
	if err := configs.Add(m); err != nil {
		t.Fatal(err)
	}
	p, _, err := generate.New(s, hintImages{}, &configs, generate.Options{}).Policy(context.Background(), m.Pods()[0])
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	b.policies[key] = text
	return text
}

// requests are those of the pod as the cluster runs it.
func (h hint) requests(t *testing.T, manifest string) []emulator.Input {
	t.Helper()
	m, err := controller.Decode([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	platform := h.platform
	if platform == "" {
		platform = "guest-pull"
	}
	options := emulatortest.Options(t, platform, hintStore)
	options.Shim.EmptyDirs = cmp.Or(h.emptyDirs, options.Shim.EmptyDirs)
	pod, err := emulator.New(context.Background(), m, 0, options)
	if err != nil {
		t.Fatal(err)
	}
	life, err := pod.Start()
	if err != nil {
		t.Fatal(err)
	}
	if name, command, ok := strings.Cut(h.exec, ":"); ok {
		more, err := pod.Exec(name, strings.Fields(command), nil)
		if err != nil {
			t.Fatal(err)
		}
		life = append(life, more...)
	}
	var all []emulator.Input
	for _, r := range life {
		kind, input, err := r.Input()
		if err != nil {
			t.Fatal(err)
		}
		if !emulator.Optional(kind) {
			all = append(all, emulator.Input{Container: r.Container, Kind: kind, Request: input})
		}
	}
	return all
}

func (h hint) apply(t *testing.T, all []emulator.Input) []emulator.Input {
	t.Helper()
	for _, text := range h.change {
		c, err := emulator.ParseChange(text)
		if err == nil {
			err = c.Apply(all)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range h.remove {
		c, err := emulator.ParseRemoval(text)
		if err == nil {
			err = c.Apply(all)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all = h.add(t, all)
	if h.again == "" {
		return all
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Kind == h.again {
			return append(all, all[i])
		}
	}
	t.Fatalf("no %s", h.again)
	return nil
}

// neighbours are an ARP entry of the guest's loopback.
var neighbours = map[string]any{"ARPNeighbors": []any{map[string]any{
	"toIPAddress": map[string]any{"address": "10.0.0.1", "family": 0, "mask": ""}, "device": "lo", "lladdr": "aa:bb:cc:dd:ee:ff", "state": 128, "flags": 0,
}}}

// add does what no change of a value can.
func (h hint) add(t *testing.T, all []emulator.Input) []emulator.Input {
	t.Helper()
	web := ""
	for i, r := range all {
		if r.Kind == "CreateContainerRequest" && r.Container == "web" {
			web = r.Request["container_id"].(string)
			if h.double != "" {
				oci := r.Request["OCI"].(map[string]any)
				holder, key := oci, h.double
				if before, after, ok := strings.Cut(h.double, "."); ok {
					holder, key = oci[before].(map[string]any), after
				}
				list := holder[key].([]any)
				holder[key] = append(list, list[len(list)-1])
			}
		}
		if h.without == r.Kind {
			all = append(append([]emulator.Input{}, all[:i]...), all[i+1:]...)
			h.without = ""
		}
	}
	if h.extra != "" {
		all = append(all, emulator.Input{Container: "web", Kind: h.extra, Request: map[string]any{"container_id": web, "exec_id": web, "len": 1, "data": []any{}, "neighbors": neighbours}})
	}
	return all
}

// denied judges requests in order, and gives the first that is denied with the state before it.
func (b *hintBench) denied(t *testing.T, text []byte, all []emulator.Input) (*explain.Question, string) {
	t.Helper()
	p, err := b.compiler.Compile(context.Background(), text)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(p, engine.Options{Timeout: time.Minute})
	defer e.Close()
	for _, r := range all {
		raw, err := json.Marshal(r.Request)
		if err != nil {
			t.Fatal(err)
		}
		state := e.State().Possible[0]
		v, err := e.Judge(context.Background(), engine.Request{EntryPoint: r.Kind, Input: func(*engine.Policy) (ast.Value, error) {
			return ast.ValueFromReader(bytes.NewReader(raw))
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !v.Allowed {
			return &explain.Question{Kind: r.Kind, Input: raw, State: state}, v.Reason
		}
		if err := v.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return nil, ""
}

func TestEachHintMendsWhatItIsGivenFor(t *testing.T) {
	b := newHintBench(t)
	asked := map[string]bool{}
	for _, h := range hints {
		t.Run(h.name(), func(t *testing.T) { asked[b.mend(t, h)] = true })
	}
	if t.Failed() {
		return
	}
	for _, words := range explain.AllAdvice() {
		if asked[words] == (untested[words] != "") {
			t.Errorf("has a case: %v, is listed as without: %v: %s", asked[words], untested[words] != "", words)
		}
	}
}

// mend runs one case, and gives the template of the words that were said.
func (b *hintBench) mend(t *testing.T, h hint) string {
	t.Helper()
	base := edit(t, hintManifest, h.base)
	policy, cluster := b.policy(t, base, h.made...), edit(t, base, h.manifest)
	ran := h.apply(t, h.requests(t, cluster))
	q, reason := b.denied(t, policy, ran)
	if q == nil {
		t.Fatal("the case is allowed")
	}
	x, err := b.explainer(t, policy).Explain(context.Background(), *q)
	if err != nil {
		t.Fatal(err)
	}
	x.AddReason(reason)
	if !strings.HasPrefix(x.Change, h.advice) {
		t.Fatalf("denied: %s\nchange: %s\nwant    %s", reason, x.Change, h.advice)
	}
	switch {
	case h.settings != "":
		b.allowed(t, "with the settings", b.policy(t, base, append(h.made, h.settings)...), ran)
	case h.manifest[0] != "":
		b.allowed(t, "with the policy made again", b.policy(t, cluster, h.made...), ran)
		fallthrough
	default:
		if !b.undone[string(policy)] {
			b.allowed(t, "with the change undone", policy, hint{}.requests(t, base))
			b.undone[string(policy)] = true
		}
	}
	return explain.AdviceOf(x.Change)
}

func edit(t *testing.T, text string, change [2]string) string {
	t.Helper()
	if change[0] == "" {
		return text
	}
	changed := strings.Replace(text, change[0], change[1], 1)
	if changed == text {
		t.Fatalf("the manifest has no %q", change[0])
	}
	return changed
}

func (b *hintBench) allowed(t *testing.T, how string, policy []byte, all []emulator.Input) {
	t.Helper()
	if q, reason := b.denied(t, policy, all); q != nil {
		t.Errorf("%s: %s is denied: %s", how, q.Kind, reason)
	}
}

func (h hint) name() string {
	parts := append([]string{h.exec, h.again, h.without, h.double, h.extra, strings.TrimSpace(h.manifest[1]), h.platform}, append(h.change, h.remove...)...)
	name := strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
	return strings.ReplaceAll(name[:min(len(name), 70)], "/", "_")
}
