// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"
)

// prepared is a manifest with five things that its owner should not want, and what a report must say of each before anything
// else. [TestReportInChromium] holds that they are in the first screen.
type prepared struct {
	name, spec string
	dropIns    []string
	gravest    [5]string
}

const (
	boundImage = `"registry.example/web:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`
	tagged     = `"registry.example/web:1"`
)

var preparedManifests = []prepared{
	{"node-agent", `containers: [{name: agent, image: ` + tagged + `, securityContext: {privileged: true}, env: [{name: API_TOKEN, value: t0p}],
      volumeMounts: [{name: logs, mountPath: /host/log}]}]
  initContainers: [{name: check, image: ` + boundImage + `}]
  volumes: [{name: logs, hostPath: {path: /var/log}}]`, []string{"unordered"},
		[5]string{"Is privileged", "can be skipped", "fills, reads and may change /host/log", "content is", "API_TOKEN"}},
	{"shop-by-tag", `containers:
  - {name: web, image: ` + tagged + `, env: [{name: SESSION_SECRET, value: s}]}
  - {name: queue, image: ` + tagged + `, volumeMounts: [{name: data, mountPath: /data}]}
  initContainers: [{name: migrate, image: ` + boundImage + `, env: [{name: DB_PASSWORD, value: p}]}]
  volumes: [{name: data, hostPath: {path: /srv}}]`, []string{"unordered"},
		[5]string{"can be skipped", "fills, reads and may change /data", "content is", "SESSION_SECRET", "DB_PASSWORD"}},
	{"database", `containers: [{name: db, image: ` + tagged + `, env: [{name: POSTGRES_PASSWORD, value: p}], volumeMounts: [{name: data, mountPath: /var/lib/db}]}]
  initContainers: [{name: chown, image: ` + boundImage + `, securityContext: {privileged: true}}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]`, []string{"unordered"},
		[5]string{"Is privileged", "can be skipped", "fills, reads and may change /var/lib/db", "content is", "POSTGRES_PASSWORD"}},
	{"loose-settings", `containers: [{name: web, image: ` + tagged + `, securityContext: {privileged: true}, env: [{name: TOKEN, value: t}], volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, hostPath: {path: /srv}}]`, []string{"compat-kata"},
		[5]string{"strict.image", "Is privileged", "fills, reads and may change /v", "content is", "TOKEN"}},
	{"host-root", `containers: [{name: backup, image: ` + tagged + `, securityContext: {privileged: true}, env: [{name: S3_SECRET_KEY, value: k}],
      volumeMounts: [{name: host, mountPath: /host}]}, {name: push, image: ` + boundImage + `, env: [{name: PUSH_PASSWORD, value: p}]}]
  volumes: [{name: host, hostPath: {path: /home}}]`, nil,
		[5]string{"Is privileged", "fills, reads and may change /host", "content is", "S3_SECRET_KEY", "PUSH_PASSWORD"}},
	{"pipeline", `containers: [{name: report, image: ` + tagged + `, volumeMounts: [{name: out, mountPath: /out}]}]
  initContainers:
  - {name: fetch, image: ` + tagged + `, env: [{name: GIT_TOKEN, value: g}], volumeMounts: [{name: in, mountPath: /in}]}
  - {name: check, image: ` + boundImage + `}
  volumes: [{name: in, hostPath: {path: /srv/in}}, {name: out, hostPath: {path: /srv/out}}]`, []string{"unordered"},
		[5]string{"can be skipped", "fills, reads and may change /in", "fills, reads and may change /out", "content is", "GIT_TOKEN"}},
	{"raw-disk", `containers:
  - {name: db, image: ` + tagged + `, volumeDevices: [{name: raw, devicePath: /dev/xvda}], env: [{name: ROOT_PASSWORD, value: r}]}
  initContainers: [{name: format, image: ` + boundImage + `, securityContext: {privileged: true}}]
  volumes: [{name: raw, persistentVolumeClaim: {claimName: raw}}]`, []string{"unordered"},
		[5]string{"Is privileged", "can be skipped", "content of block devices", "content is", "ROOT_PASSWORD"}},
	{"files-by-key", `containers: [{name: web, image: ` + tagged + `, env: [{name: COOKIE_SECRET, value: c}],
      volumeMounts: [{name: site, mountPath: /site, subPath: a}, {name: cache, mountPath: /cache}]}, {name: debug, image: ` + tagged + `, securityContext: {privileged: true}}]
  initContainers: [{name: unpack, image: ` + boundImage + `}]
  volumes: [{name: site, hostPath: {path: /srv/site}}, {name: cache, hostPath: {path: /srv/cache}}]`, []string{"unordered"},
		[5]string{"Is privileged", "can be skipped", "fills, reads and may change /cache, /site", "content is", "COOKIE_SECRET"}},
	{"mesh", `hostNetwork: true
  containers: [{name: app, image: ` + tagged + `, env: [{name: MESH_TOKEN, value: m}]}, {name: proxy, image: ` + tagged + `,
      volumeMounts: [{name: certs, mountPath: /certs}]}]
  initContainers: [{name: redirect, image: ` + boundImage + `, securityContext: {privileged: true}}]
  volumes: [{name: certs, hostPath: {path: /etc/mesh}}]`, []string{"unordered"},
		[5]string{"Is privileged", "can be skipped", "fills, reads and may change /certs", "content is", "MESH_TOKEN"}},
	{"mirror", `containers:
  - {name: pull, image: ` + tagged + `, volumeMounts: [{name: spool, mountPath: /spool}]}
  - {name: serve, image: ` + boundImage + `, volumeMounts: [{name: spool, mountPath: /www}], env: [{name: ADMIN_PASSWORD, value: a}, {name: API_KEY, value: b}]}
  initContainers: [{name: prime, image: ` + boundImage + `}]
  volumes: [{name: spool, hostPath: {path: /srv/spool}}]`, []string{"unordered"},
		[5]string{"can be skipped", "fills, reads and may change /spool", "fills, reads and may change /www", "content is", "ADMIN_PASSWORD, API_KEY"}},
}

// warningOnPage is one of the list that a report begins with.
var warningOnPage = regexp.MustCompile(`(?s)<li class="(grave|look|note)"><span class="badge [a-z]+">[a-z]+</span> <span>(.*?)</span></li>`)

func TestTheFiveGravestThingsComeFirst(t *testing.T) {
	for _, p := range preparedManifests {
		t.Run(p.name, func(t *testing.T) {
			page := must(t, "report", "--policy", policyOf(t, p.spec, "", p.dropIns...))
			var first []string
			for _, w := range warningOnPage.FindAllStringSubmatch(strings.ReplaceAll(page, "<wbr>", ""), len(p.gravest)) {
				first = append(first, w[1]+": "+w[2])
			}
			said := strings.Join(first, "\n")
			for _, want := range p.gravest {
				if !strings.Contains(said, want) {
					t.Errorf("%q is none of the first %d:\n%s", want, len(p.gravest), said)
				}
			}
		})
	}
}
