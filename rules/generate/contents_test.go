// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"portcullis/rules/generate"
	"portcullis/rules/policydata"
)

const contentsHead = `apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: prod}
data: {policy.rego: "deny", app.conf: "a", app.yaml: "b"}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: prod}
spec:
  SECURITY
  containers:
  - name: x
    image: busybox:1.37
    command: [serve]
    volumeMounts: [MOUNTS]
  volumes: [VOLUMES]
`

// contentsOf makes the policy of a pod with these mounts and volumes and describes the mounts.
func contentsOf(t *testing.T, mounts, volumes, security string) (map[string]string, []*generate.Finding, error) {
	t.Helper()
	text := strings.NewReplacer("MOUNTS", mounts, "VOLUMES", volumes, "SECURITY", security).Replace(contentsHead)
	made, warnings, err := withSecrets(t, text, "")
	if err != nil {
		return nil, warnings, err
	}
	out := map[string]string{}
	for destination, m := range made.Containers["x"].Mounts {
		out[destination] = describe(m.Contents)
	}
	return out, warnings, nil
}

func describe(c *policydata.Contents) string {
	if c == nil {
		return "anything"
	}
	var all []string
	for key, f := range c.Files {
		text := fmt.Sprintf("%s %.4s %d %o", key, f.SHA256, f.Size, f.Mode)
		if f.Optional {
			text += " optional"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	if c.Open {
		all = append(all, "and more")
	}
	return strings.Join(all, ", ")
}

func TestContentsAreBoundByDestinationAndKey(t *testing.T) {
	const config = "{name: c, configMap: {name: c, items: [{key: policy.rego, path: d/p, mode: 0400}, {key: app.conf, path: app}]}}"
	for _, test := range []struct {
		name, mounts, volumes, security string
		at, want, warned                string
	}{
		{"a mount named as a platform's file", "{name: c, mountPath: /etc/dns/hosts}", config, "", "/etc/dns/hosts", "app ca97 1 644, d/p 3026 4 400", ""},
		{"a file of it", "{name: c, mountPath: /etc/p, subPath: d/p}", config, "", "/etc/p", " 3026 4 400", ""},
		{"a directory of it", "{name: c, mountPath: /etc/d, subPath: d}", config, "", "/etc/d", "p 3026 4 400", ""},
		{"what it does not hold", "{name: c, mountPath: /etc/d, subPath: e}", config, "", "/etc/d", "anything", "does not hold"},
		{"the pod's group may read", "{name: c, mountPath: /etc/d, subPath: d}", config, "securityContext: {fsGroup: 7}", "/etc/d", "p 3026 4 440", ""},
		{"beside a token", "{name: all, mountPath: /etc/all}",
			"{name: all, projected: {sources: [{configMap: {name: c, items: [{key: app.conf, path: app}]}}, {serviceAccountToken: {path: token}}]}}", "",
			"/etc/all", "app ca97 1 644, token  0 0", ""},
		{"beside what was not given", "{name: all, mountPath: /etc/all}",
			"{name: all, projected: {sources: [{configMap: {name: c, items: [{key: app.conf, path: app}]}}, {secret: {name: s}}]}}", "",
			"/etc/all", "app ca97 1 644, and more", "was not given"},
		{"keys that share a temporary file", "{name: c, mountPath: /c}", "{name: c, configMap: {name: c}}", "", "/c",
			"app.conf ca97 1 644, app.yaml 3e23 1 644, policy.rego 3026 4 644", "keys app.conf and app.yaml kata-agent writes by way of one temporary file, app.tmp"},
		{"an emptyDir's subPath", "{name: e, mountPath: /e, subPath: s}", "{name: e, emptyDir: {}}", "", "/e", "", "directory of the host"},
		{"a claim", "{name: e, mountPath: /e}", "{name: e, persistentVolumeClaim: {claimName: e}}", "", "/e", "anything", "not bound"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, warnings, err := contentsOf(t, test.mounts, test.volumes, test.security)
			if err != nil || got[test.at] != test.want {
				t.Errorf("holds %q, want %q (%v)", got[test.at], test.want, err)
			}
			about := fmt.Sprint(warnings)
			if !strings.Contains(about, test.warned) || test.warned == "" && strings.Contains(about, "volumeMounts") {
				t.Errorf("warnings are %v, want one of %q", warnings, test.warned)
			}
		})
	}
}

func TestNothingBoundLiesBelowWhatTheHostFills(t *testing.T) {
	const volumes = "{name: host, hostPath: {path: /srv}}, {name: c, configMap: {name: c, items: [{key: app.conf, path: app}]}}, {name: m, emptyDir: {medium: Memory}}, {name: d, emptyDir: {}}"
	for mounts, refused := range map[string]bool{
		"{name: host, mountPath: /data}, {name: c, mountPath: /data/conf}":                true,
		"{name: m, mountPath: /data/a/b}, {name: host, mountPath: /data/}":                true,
		"{name: host, mountPath: /data}, {name: d, mountPath: /data/d}":                   true,
		"{name: host, mountPath: /data}, {name: c, mountPath: /data2/conf}":               false,
		"{name: host, mountPath: /data}, {name: host, mountPath: /data/more, subPath: x}": false,
		"{name: m, mountPath: /data}, {name: c, mountPath: /data/conf}":                   false,
	} {
		_, _, err := contentsOf(t, mounts, volumes, "")
		if found, only := generate.Findings(err); (len(found) > 0) != refused || !only || refused && !strings.Contains(found[0].Text, "which the host fills") {
			t.Errorf("%s: %v", mounts, err)
		}
	}
}
