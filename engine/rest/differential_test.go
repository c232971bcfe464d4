// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"portcullis/internal/shareddata"
)

// exchange is one request that OPA and this server must answer alike.
type exchange struct {
	method, target, body string
	headers              []string
}

func (e exchange) String() string {
	return fmt.Sprintf("%s %s %.200q %v", e.method, e.target, e.body, e.headers)
}

// differences runs exchanges against both servers and reports where they part.
func differences(t *testing.T, opa, ours string, exchanges []exchange) {
	t.Helper()
	found, untyped, statuses := 0, 0, map[int]int{}
	for _, e := range exchanges {
		want := send(t, opa, e.method, e.target, e.body, e.headers...)
		got := send(t, ours, e.method, e.target, e.body, e.headers...)
		statuses[want.status]++
		if got.status == want.status && got.location == want.location && reflect.DeepEqual(document(got.body), document(want.body)) {
			continue
		}
		if isTypeError(want) && !strings.Contains(got.body, `"result"`) {
			untyped++
			continue
		}
		if found++; found <= 20 {
			t.Errorf("%v\n  OPA:  %d %.600s\n  ours: %d %.600s", e, want.status, want.body, got.status, got.body)
		}
	}
	t.Logf("%d requests, %d answered differently, %d undefined here and a type error in OPA; statuses %v", len(exchanges), found, untyped, statuses)
}

// isTypeError says whether OPA refused a path that cannot be there by the types of the rules. Here it is undefined.
func isTypeError(r reply) bool {
	return r.status == http.StatusInternalServerError && strings.Contains(r.body, "rego_type_error")
}

// document is a body for comparison: JSON without the times and counters of metrics, or text. Of several errors in a policy
// the first counts, without the lines of the policy that OPA quotes; what the evaluator says of a conflict is not compared.
func document(body string) any {
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return body
	}
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	if m["metrics"] != nil {
		m["metrics"] = "there"
	}
	list, _ := m["errors"].([]any)
	switch {
	case len(list) > 0 && m["code"] == "internal_error":
		m["errors"] = "there"
	case len(list) > 0:
		delete(list[0].(map[string]any), "details")
		m["errors"] = list[:1]
	}
	return v
}

// recorded is a request of the corpus.
type recorded struct {
	Kind    string          `json:"kind"`
	Request json.RawMessage `json:"request"`
}

// corpus reads the recorded requests, or skips.
func corpus(t testing.TB) []recorded {
	t.Helper()
	dir := shareddata.Dir(t, "corpus")
	var all []recorded
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "testcases.json" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var cases []recorded
		if err := json.Unmarshal(text, &cases); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, cases...)
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("no requests at %s: %v", dir, err)
	}
	return all
}

// mutate changes one leaf or member of a JSON document.
func mutate(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 || r.IntN(12) == 0 {
			return map[string]any{"unexpected": v}
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		k := keys[r.IntN(len(keys))]
		if r.IntN(10) == 0 {
			delete(v, k)
		} else {
			v[k] = mutate(r, v[k])
		}
		return v
	case []any:
		if len(v) == 0 || r.IntN(6) == 0 {
			return append(v, "more")
		}
		i := r.IntN(len(v))
		v[i] = mutate(r, v[i])
		return v
	}
	leaves := []any{nil, true, false, "", "../x", "ä\u2028<&>", 0, -1, 1e300, json.Number("12345678901234567890"), []any{}, map[string]any{}}
	return leaves[r.IntN(len(leaves))]
}

// malformedBodies are no requests, or hardly.
func malformedBodies() []string {
	deep := strings.Repeat("[", 10001) + strings.Repeat("]", 10001)
	return []string{
		"", " ", "{", "}", "[]", "1", `"x"`, "null", "true", "nul", `{"input"`, `{"input":}`, `{"input":null}`, `{"input":{}`, `{"input":{}}}`,
		`{"input":{}} trailing`, `{"input":{}}{"input":1}`, `{"INPUT":{"first":true}}`,
		`{"input":{"a":"` + "\xff" + `"}}`, `{"input":{"a":"` + "\x01" + `"}}`, `{"input":{"a":"\ud800"}}`, `{"input":1e999}`, `{"input":01}`,
		`{"input":NaN}`, `{"input":'x'}`, `{"inp\u0075t":{"first":true}}`, `{"other":{}}`, `{"input":` + deep + `}`, "\xef\xbb\xbf{}", "\x00",
		`{"input":{"first":true,"second":true}}`, `{"input":[{"a":1}],"metadata":{"x":[1]}}`, `input: {}`, "<xml/>",
	}
}

func TestAnswersAreThoseOfOPA(t *testing.T) {
	const policy = "testdata/pod.rego"
	opa, _ := startOPA(t, policy)
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	ours := startRig(t, string(text), nil)
	r := rand.New(rand.NewPCG(1, 2))

	var all []exchange
	post := func(name, body string) {
		all = append(all, exchange{method: "POST", target: "/v1/data/agent_policy/" + name, body: body})
	}
	requests := append(corpus(t), allowedRequests...)
	for _, c := range requests {
		post(c.Kind, `{"input":`+string(c.Request)+`}`)
		all = append(all, exchange{method: "POST", target: "/v0/data/agent_policy/" + c.Kind + "?pretty", body: string(c.Request)})
	}
	for len(all) < 1700 {
		c := requests[r.IntN(len(requests))]
		var v any
		if err := json.Unmarshal(c.Request, &v); err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(3) {
			v = mutate(r, v)
		}
		body, err := json.Marshal(map[string]any{"input": v})
		if err != nil {
			t.Fatal(err)
		}
		post(c.Kind, string(body))
	}
	all = append(all, queries()...)
	for _, body := range malformedBodies() {
		for _, name := range []string{"ExecProcessRequest", "undecided", "nothing", "StatsContainerRequest"} {
			post(name, body)
			all = append(all, exchange{method: "POST", target: "/v0/data/agent_policy/" + name, body: body})
		}
	}
	for _, size := range []int{1 << 16, 1 << 20, 4 << 20, 12 << 20} {
		post("ExecProcessRequest", `{"input":{"process":{"Args":["`+strings.Repeat("a", size)+`"]}}}`)
		post("CopyFileRequest", `{"input":{"path":"/x","data":[`+strings.TrimSuffix(strings.Repeat("255,", size/4), ",")+`]}}`)
		post("ExecProcessRequest", `{"input":"`+strings.Repeat("a", size)) // cut off
	}
	if len(all) < 2000 {
		t.Errorf("only %d requests", len(all))
	}
	differences(t, opa, ours.url, all)
}

// OPA takes the last of two members of one name.
func TestInputsWithAKeyTwiceAreRefused(t *testing.T) {
	ours := startRig(t, "package agent_policy\nExecProcessRequest { input.a }", nil)
	for _, body := range []string{
		`{"input":{"a":false},"input":{"a":true}}`, `{"input":{"a":true,"b":{"c":1,"\u0063":2}}}`, `{"input":{"a":true,"a":true}} trailing`, `{"input":{"a":true},"x":1,"x":2}`,
	} {
		if r := ours.send(t, "POST", "/v1/data/agent_policy/ExecProcessRequest", body); r.status != 400 || !strings.Contains(r.body, "a key is there twice") {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := ours.send(t, "POST", "/v0/data/agent_policy/ExecProcessRequest", `{"a":true,"a":true}`); r.status != 400 {
		t.Errorf("version 0 of the API: %d %s", r.status, r.body)
	}
	if r := ours.send(t, "GET", "/v1/data/agent_policy/ExecProcessRequest?input="+url.QueryEscape(`{"a":true,"a":true}`), ""); r.status != 400 {
		t.Errorf("a parameter: %d %s", r.status, r.body)
	}
	if r := ours.send(t, "POST", "/v1/data/agent_policy/ExecProcessRequest", `{"input":{"a":true,"b":{"a":1}}}`); r.status != 200 {
		t.Errorf("one of each: %d %s", r.status, r.body)
	}
}

// allowedRequests are what testdata/pod.rego allows.
var allowedRequests = []recorded{
	{"ExecProcessRequest", []byte(`{"container_id":"a","process":{"Args":["/bin/probe","--live"],"Env":["PATH=/bin","A=b"],"Terminal":false}}`)},
	{"ExecProcessRequest", []byte(`{"process":{"Args":["sh"],"Env":[],"Terminal":false}}`)},
	{"CreateContainerRequest", []byte(`{"OCI":{"Annotations":{"io.kubernetes.cri.container-name":"app"},"Root":{"Readonly":true},
		"Process":{"Args":["/bin/app","--serve"],"Env":["MODE=Production mode","A=b"],"NoNewPrivileges":true,"Terminal":false},
		"Mounts":[{"destination":"/proc","source":"proc","type_":"proc","options":["nosuid","noexec","nodev"]}]}}`)},
	{"CreateSandboxRequest", []byte(`{"guest_hook_path":"","kernel_modules":[],"storages":[]}`)},
	{"CopyFileRequest", []byte(`{"path":"/run/kata-containers/shared/containers/x"}`)},
	{"StatsContainerRequest", []byte(`{"container_id":"a"}`)},
	{"ReadStreamRequest", []byte(`{"container_id":"a"}`)},
	{"RemoveContainerRequest", []byte(`{"container_id":"a-1"}`)},
	{"SetPolicyRequest", []byte(`{"policy":"package agent_policy"}`)},
}

// queries are paths, methods and parameters.
func queries() []exchange {
	var all []exchange
	paths := []string{
		"", "/", "//", "/agent_policy", "/agent_policy/", "/agent_policy/nothing", "/agent_policy/nothing/deeper", "/other", "/other/x", "/agent_policy/env_ok/x/y",
		"/agent_policy/policy_data", "/agent_policy/policy_data/exec/0", "/agent_policy/policy_data/exec/3", "/agent_policy/policy_data/exec/-1",
		"/agent_policy/policy_data/exec/x", "/agent_policy/policy_data/common/env", "/agent_policy/policy_data/containers/0/OCI/Mounts/0/options",
		"/agent_policy/StatsContainerRequest", "/agent_policy/StatsContainerRequest/deeper", "/agent_policy/undecided", "/agent_policy/policy%5Fdata",
		"/agent_policy%2Fpolicy_data", "/agent_policy/a%22b", "/agent_policy/%C3%A4", "/agent_policy/policy_data/", "/agent_policy//policy_data", "/agent_policy/../x", "/1/2",
	}
	for _, p := range paths {
		for _, params := range []string{"", "?pretty", "?pretty=true", "?pretty=false", "?metrics", "?input=%7B%7D", "?input=%7B%22first%22:true%7D", "?input=bad", "?input=", "?explain=off&pretty", "?explain=sure"} {
			all = append(all, exchange{method: "GET", target: "/v1/data" + p + params})
		}
		for _, method := range []string{"HEAD", "OPTIONS", "TRACE", "LINK"} {
			all = append(all, exchange{method: method, target: "/v1/data" + p}, exchange{method: method, target: "/v0/data" + p})
		}
		all = append(all,
			exchange{method: "POST", target: "/v1/data" + p, body: `{"input":{"first":true}}`},
			exchange{method: "POST", target: "/v1/data" + p + "?metrics&pretty", body: `{"input":{}}`},
			exchange{method: "POST", target: "/v1/data" + p + "?input=bad", body: `{"input":{}}`},
			exchange{method: "POST", target: "/v1/data" + p},
			exchange{method: "POST", target: "/v1/data" + p, body: `{"input":{}}`, headers: []string{"Content-Type", "text/plain"}},
			exchange{method: "POST", target: "/v0/data" + p, body: `{}`},
			exchange{method: "GET", target: "/v0/data" + p},
			exchange{method: "PUT", target: "/v0/data" + p, body: `{}`},
		)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} {
		all = append(all, exchange{method: method, target: "/v1/policies"}, exchange{method: method, target: "/v1/policies/"})
	}
	for _, method := range []string{"POST", "PATCH", "HEAD", "OPTIONS"} {
		all = append(all, exchange{method: method, target: "/v1/policies/x"}, exchange{method: method, target: "/health"}, exchange{method: method, target: "/nothing"})
	}
	return append(all,
		exchange{method: "GET", target: "/health"}, exchange{method: "GET", target: "/health?plugins&bundles"}, exchange{method: "GET", target: "/nothing"},
		exchange{method: "GET", target: "/v1"}, exchange{method: "GET", target: "/v1/"}, exchange{method: "GET", target: "/v2/data"},
		exchange{method: "GET", target: "/v1/policies/nothing"}, exchange{method: "GET", target: "/v1/policies/nothing/deeper?pretty"},
		exchange{method: "DELETE", target: "/v1/policies/nothing"},
	)
}

func TestPoliciesAreAnsweredAsOPADoes(t *testing.T) {
	const text = "package agent_policy\n\ndefault SetPolicyRequest := true\n\nX { input.a == 1 }\n"
	for _, tt := range []struct {
		name  string
		calls []exchange
	}{
		{"put, get, list, query, delete", []exchange{
			{method: "PUT", target: policyURL, body: text},
			{method: "PUT", target: policyURL + "?pretty", body: text},
			{method: "GET", target: policyURL},
			{method: "GET", target: policyURL + "?pretty"},
			{method: "GET", target: "/v1/policies"},
			{method: "POST", target: "/v1/data/agent_policy/X", body: `{"input":{"a":1}}`},
			{method: "POST", target: "/v1/data/agent_policy/X", body: `{"input":{"a":2}}`},
			{method: "POST", target: "/v1/data/agent_policy/AllowRequestsFailingPolicy", body: `{"input":{}}`},
			{method: "DELETE", target: policyURL + "/deeper"},
			{method: "DELETE", target: policyURL + "?pretty"},
			{method: "DELETE", target: policyURL},
			{method: "GET", target: policyURL},
			{method: "GET", target: "/v1/policies"},
			{method: "POST", target: "/v1/data/agent_policy/X", body: `{"input":{"a":1}}`},
			{method: "POST", target: "/v0/data/agent_policy/X", body: `{"a":1}`},
			{method: "GET", target: "/v1/data"},
		}},
		{"put another", []exchange{
			{method: "PUT", target: policyURL, body: text},
			{method: "DELETE", target: policyURL},
			{method: "PUT", target: policyURL + "?metrics", body: "package agent_policy\n\nX { input.b == 1 }\n"},
			{method: "POST", target: "/v1/data/agent_policy/X", body: `{"input":{"b":1}}`},
			{method: "GET", target: policyURL},
		}},
		{"a syntax error", []exchange{{method: "PUT", target: policyURL, body: "package agent_policy\n\nx := }"}}},
		{"no package", []exchange{{method: "PUT", target: policyURL, body: "x := 1"}}},
		{"an undefined function", []exchange{{method: "PUT", target: policyURL, body: "package agent_policy\np { foo(1) }"}}},
		{"an unsafe variable", []exchange{{method: "PUT", target: policyURL, body: "package agent_policy\np { x == 1 }"}}},
		{"an empty text", []exchange{{method: "PUT", target: policyURL}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opa, _ := startOPA(t)
			differences(t, opa, startRig(t, "package agent_policy\n\ndefault SetPolicyRequest := true\n", nil).url, tt.calls)
		})
	}
}
