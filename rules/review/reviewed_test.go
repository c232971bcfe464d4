// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/images"
	"portcullis/internal/imagestest"
	"portcullis/rules/review"
)

const (
	byTag   = "The image's content is not bound: named by a tag, which can come to mean another image."
	skipped = "Init containers can be skipped: containers may come in any order (order = \"free\")."
	power   = "Is privileged: all capabilities, no path of the kernel masked; it can change the guest around it."
)

// reviewed are ten prepared manifests with the gravest things in them, which a reviewer has to find first: what follows
// "containers:", and the first of the page's warnings, five at most.
var reviewed = []struct {
	name, containers, settings, platform string
	first                                []string
}{
	{name: "a web server by tag", containers: "[{name: web, image: i:1}]", first: []string{"web: " + byTag}},
	{name: "a privileged agent with the node's files", containers: `[{name: agent, image: i:1, securityContext: {privileged: true}, volumeMounts: [{name: host, mountPath: /host}]}]
  volumes: [{name: host, hostPath: {path: /var}}]`, first: []string{"agent: " + power, "agent: The host fills, reads and may change /host.", "agent: " + byTag}},
	{name: "a database with its password", containers: `[{name: db, image: i:1, env: [{name: DB_PASSWORD, value: x}], volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]`, first: []string{"db: The host fills, reads and may change /data.", "db: " + byTag, "db: In the policy in clear, and so known to the host: DB_PASSWORD."}},
	{name: "a migration before the server", settings: "order = 'free'", containers: `[{name: web, image: i:1}]
  initContainers: [{name: migrate, image: i:1}]`, first: []string{skipped, "migrate: " + byTag, "web: " + byTag}},
	{name: "the same in order", containers: `[{name: web, image: i:1}]
  initContainers: [{name: migrate, image: i:1}]`, first: []string{"migrate: " + byTag, "web: " + byTag}},
	{name: "a debug policy", settings: "requests.exec.joined = ['^.*$']\nrequests.allow = ['GetMetricsRequest']", containers: "[{name: web, image: i:1}]", first: []string{
		"The host may run every command that matches “^.*$” in every container.", "web: " + byTag}},
	{name: "images of the host", platform: "host-pull", containers: "[{name: web, image: i:1}]", first: []string{"$sandbox: The image's content is not bound: the host shares the root filesystem.", "web: The image's content is not bound: the host shares the root filesystem."}},
	{name: "a block device", containers: `[{name: db, image: i:1, volumeDevices: [{name: data, devicePath: /dev/data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]`, first: []string{"db: The content of block devices comes from the host: /dev/data.", "db: " + byTag}},
	{name: "upstream's strictness", settings: "strict = {image = 'free', instances = 'free', lifecycle = 'free'}", containers: "[{name: web, image: i:1}]", first: []string{
		"The image that a container names is not held to the policy, or may be left out (strict.image).", "web: " + byTag,
		"A container may be created more than once (strict.instances).", "Requests may name containers that do not exist (strict.lifecycle)."}},
	{name: "everything at once", containers: `[{name: web, image: i:1, securityContext: {privileged: true}, env: [{name: API_TOKEN, value: x}], volumeMounts: [{name: conf, mountPath: /conf}, {name: host, mountPath: /host}]}]
  initContainers: [{name: first, image: i:1}]
  hostNetwork: true
  volumes: [{name: conf, configMap: {name: c}}, {name: host, hostPath: {path: /var}}]`, first: []string{
		"web: " + power, "web: The host fills, reads and may change /conf, /host.", "first: " + byTag, "web: " + byTag, "web: In the policy in clear, and so known to the host: API_TOKEN."}},
}

func TestTheGravestThingsComeFirst(t *testing.T) {
	store := imagestest.NewStore()
	store.Add("i:1", imagestest.WithFiles(images.Config{Entrypoint: []string{"/web"}, Env: []string{"PATH=/bin"}}, nil))
	if len(reviewed) != 10 {
		t.Fatalf("%d manifests", len(reviewed))
	}
	for _, test := range reviewed {
		t.Run(test.name, func(t *testing.T) {
			text := "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  containers: " + test.containers + "\n"
			p, _ := policyOf(t, text, test.platform, test.settings, oneImage{store})
			var first []string
			for _, w := range review.Of(p) {
				if w.Level != review.Grave || len(first) == 5 {
					break
				}
				line := w.Text
				if w.Container != "" {
					line = w.Container + ": " + line
				}
				first = append(first, line)
			}
			if diff := cmp.Diff(strings.Join(test.first, "\n"), strings.Join(first, "\n")); diff != "" {
				t.Errorf("the first things said are others:\n%s", diff)
			}
		})
	}
}
