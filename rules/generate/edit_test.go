// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"strings"
	"testing"
)

// Every place where annotations can be, and what the text becomes. KEY and VALUE
// stand for themselves; "!" means that the text is refused.
func TestAnnotationsAreWrittenWithoutTouchingTheRest(t *testing.T) {
	for promise, c := range map[string]struct{ in, want string }{
		"after the annotations key": {
			"metadata:\n  name: a\n  annotations:\n    # about x\n    x: 'y' # why\n",
			"metadata:\n  name: a\n  annotations:\n    KEY: VALUE\n    # about x\n    x: 'y' # why\n"},
		"a map of its own": {
			"metadata: # m\n  # n\n  name: a\n",
			"metadata: # m\n  annotations:\n    KEY: VALUE\n  # n\n  name: a\n"},
		"in flow style": {
			"metadata: {name: a}\n",
			"metadata: {\"annotations\": {\"KEY\": \"VALUE\"}, name: a}\n"},
		"in a flow map of annotations": {
			"metadata:\n    name: a\n    annotations: { x: \"é\" }\n",
			"metadata:\n    name: a\n    annotations: {\"KEY\": \"VALUE\",  x: \"é\" }\n"},
		"in place of an old plain value": {
			"metadata:\n  name: a\n  annotations:\n    KEY: old # keep\n    x: y\n",
			"metadata:\n  name: a\n  annotations:\n    KEY: VALUE # keep\n    x: y\n"},
		"in place of an old quoted value": {
			"metadata:\n  name: a\n  annotations: {KEY: 'o''ld', x: y}\n",
			"metadata:\n  name: a\n  annotations: {KEY: \"VALUE\", x: y}\n"},
		"in place of an old block": {
			"metadata:\n  name: a\n  annotations:\n    KEY: |\n      old\n\n      older\n    x: y\n",
			"metadata:\n  name: a\n  annotations:\n    KEY: VALUE\n    x: y\n"},
		"behind an empty key": {
			"metadata:\n  annotations: # none\n  name: a\n",
			"metadata:\n  annotations: # none\n    KEY: VALUE\n  name: a\n"},
		"in place of null": {
			"metadata:\n  name: a\n  annotations: ~\n",
			"metadata:\n  name: a\n  annotations: \n    KEY: VALUE\n"},
		"with the file's line ends": {
			"metadata:\r\n  name: a\r\n",
			"metadata:\r\n  annotations:\r\n    KEY: VALUE\r\n  name: a\r\n"},
		"not into an alias": {"metadata:\n  name: a\n  labels: &l {a: b}\n  annotations: *l\n", "!"},
		"beside a merge": {
			"metadata:\n  name: a\n  labels: &l {a: b}\n  annotations:\n    <<: *l\n    x: y\n",
			"metadata:\n  name: a\n  labels: &l {a: b}\n  annotations:\n    KEY: VALUE\n    <<: *l\n    x: y\n"},
		"behind an anchor": {
			"metadata: &m\n  name: a\n  annotations: &n\n    x: y\n",
			"metadata: &m\n  name: a\n  annotations: &n\n    KEY: VALUE\n    x: y\n"},
		"behind an anchor of metadata": {
			"metadata: &m # why\n  # n\n  name: a\n",
			"metadata: &m # why\n  annotations:\n    KEY: VALUE\n  # n\n  name: a\n"},
		"behind an anchor in flow style": {
			"metadata: &m {name: a}\n",
			"metadata: &m {\"annotations\": {\"KEY\": \"VALUE\"}, name: a}\n"},
		"not where an alias has it too":           {"metadata:\n  name: a\n  annotations: &l {a: b}\n  labels: *l\n", "!"},
		"not where a merge may bring it":          {"metadata:\n  <<: {annotations: {a: b}}\n  name: a\n", "!"},
		"not over a value of several plain lines": {"metadata:\n  name: a\n  annotations:\n    KEY: old\n      older\n", "!"},
	} {
		t.Run(promise, func(t *testing.T) {
			const frame = "apiVersion: v1\nkind: Pod\nspec:\n  containers: [{name: a, image: b}]\n"
			head := frame
			if strings.Contains(c.in, "\r") {
				head = strings.ReplaceAll(frame, "\n", "\r\n")
			}
			m, err := Parse("test", []byte(head+c.in), ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			err = m.Annotate(m.Pods()[0], "KEY", "VALUE")
			if err == nil {
				var got []byte
				if got, err = m.Text(); err == nil && string(got) != head+c.want {
					t.Errorf("got:\n%s\nwant:\n%s", strings.TrimPrefix(string(got), head), c.want)
				}
			}
			if refused := err != nil; refused != (c.want == "!") {
				t.Errorf("error is %v", err)
			}
		})
	}
}
