// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"portcullis/engine/policytext"
	"portcullis/rules"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// TestNonsenseIsRefused: what the rules read otherwise than its typed form says, or take for less than it looks.
func TestNonsenseIsRefused(t *testing.T) {
	prover := newProver(t)
	text, err := data(t, pods[0]).JSON()
	if err != nil {
		t.Fatal(err)
	}
	object := func(tree map[string]any, path ...string) map[string]any {
		for _, key := range path {
			tree = tree[key].(map[string]any)
		}
		return tree
	}
	for name, test := range map[string]struct {
		change func(tree map[string]any)
		want   error
		words  string
	}{
		"as it is": {func(map[string]any) {}, nil, ""},
		"what says nothing": {func(tree map[string]any) {
			object(tree, "containers", "web")["other_users"] = []any{}
			object(tree, "containers", "web", "env")["hashes"] = map[string]any{}
		}, nil, ""},
		"a key that is missing": {func(tree map[string]any) { delete(object(tree, "containers", "web"), "vfio") }, prove.ErrWritten, "containers.web.vfio"},
		"a null":                {func(tree map[string]any) { object(tree, "containers", "web")["cwd"] = nil }, prove.ErrWritten, "containers.web.cwd"},
		"a null for a list":     {func(tree map[string]any) { object(tree, "containers", "web")["storages"] = nil }, prove.ErrWritten, "containers.web.storages"},
		"a null in a list": {func(tree map[string]any) {
			object(tree, "containers", "web")["args"].([]any)[0] = nil
		}, prove.ErrWritten, "containers.web.args[0]"},
		"contents that are null": {func(tree map[string]any) {
			object(tree, "containers", "web", "mounts", "/etc/hosts")["contents"] = nil
		}, prove.ErrWritten, "contents"},
		"contents of what is not shared": {func(tree map[string]any) {
			object(tree, "containers", "web", "mounts")["/x"] = map[string]any{"from": "exact", "options": []any{}, "source": "/x", "type_": "bind",
				"contents": map[string]any{"files": map[string]any{}, "open": false}}
		}, policydata.ErrInvalid, "mounts[/x].contents"},
		"a variable that no request can have": {func(tree map[string]any) {
			object(tree, "containers", "web", "env", "optional")["A=B"] = "^.*$"
		}, policydata.ErrInvalid, "A=B"},
		"a common variable that no request can have": {func(tree map[string]any) {
			object(tree, "common", "env", "names")["A=B"] = "^.*$"
		}, policydata.ErrInvalid, "A=B"},
		"a capability that is quoted once more": {func(tree map[string]any) {
			at := object(tree, "common", "capabilities", object(tree, "containers")["web"].(map[string]any)["capabilities"].(string))
			at["Bounding"] = []any{`"CAP_SYS_ADMIN"`}
		}, policydata.ErrInvalid, "SYS_ADMIN"},
		"an empty pattern beside a template": {func(tree map[string]any) {
			object(tree, "containers", "web", "arg_matches")["0"] = map[string]any{"template": "x", "pattern": ""}
		}, prove.ErrWritten, "arg_matches.0.pattern"},
		"a count below zero":      {func(tree map[string]any) { object(tree, "containers", "web", "vfio")["count"] = -1 }, policydata.ErrInvalid, "vfio.count"},
		"a level of another word": {func(tree map[string]any) { object(tree, "strict")["annotations"] = "strict" }, policydata.ErrInvalid, "strict.annotations"},
	} {
		var tree map[string]any
		if err := json.Unmarshal(text, &tree); err != nil {
			t.Fatal(err)
		}
		test.change(tree)
		changed, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		p, err := prover.Load(t.Context(), fmt.Appendf(nil, "package agent_policy\n\nrules := %q\n\npolicy_data := %s\n", policytext.DigestOf([]byte(rules.Text())), changed))
		if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: error is %v", name, err)
		}
		if p != nil {
			p.Close()
		}
	}
}
