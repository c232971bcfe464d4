// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"testing"

	"portcullis/internal/emulator/controller"
)

const twoNamespaces = `
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: one}
data: {key: of one}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: two}
data: {key: of two}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: any}
data: {key: of any}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: single, namespace: two}
data: {key: of two}
---
apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: one}
spec: {containers: [{name: app, image: app}]}
`

func TestObjectsAreOfTheirNamespaces(t *testing.T) {
	m, err := controller.Decode([]byte(twoNamespaces))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ namespace, name, want string }{
		{"one", "conf", "of one"}, {"two", "conf", "of two"}, {"default", "conf", ""}, {"three", "conf", ""},
		{"one", "any", "of any"}, {"default", "single", "of two"}, {"one", "single", ""},
	} {
		got := ""
		if o, ok := m.Objects.ConfigMaps.In(c.namespace, c.name); ok {
			got = o.Data["key"]
		}
		if got != c.want {
			t.Errorf("%s of %s is %q, want %q", c.name, c.namespace, got, c.want)
		}
	}
}
