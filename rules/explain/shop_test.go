// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

var update = flag.Bool("update", false, "rewrite testdata")

const shopFile = "testdata/shop.json"

// shop is the policy_data of the pod that the tests and the documents speak of:
// a database client as init container, a web server with volumes, a metrics agent.
func shop(tb testing.TB) *policydata.Policy {
	tb.Helper()
	s, err := settings.Load("guest-pull")
	if err != nil {
		tb.Fatal(err)
	}
	p, err := s.Policy()
	if err != nil {
		tb.Fatal(err)
	}
	p.Sandbox.Name, p.Sandbox.Namespace = "^shop-[0-9a-f]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$", "prod"
	p.Containers[policydata.SandboxContainer] = shopPause(s)
	p.Containers["migrate"] = shopContainer(s, "migrate", "registry.example/shop/migrate")
	p.Containers["web"] = shopContainer(s, "web", "registry.example/shop/web")
	p.Containers["metrics"] = shopContainer(s, "metrics", "registry.example/metrics-agent")
	p.Containers["migrate"].Args = []string{"/bin/migrate", "up"}
	metrics := p.Containers["metrics"]
	metrics.OCI.Annotations.ImageName = "registry.example/metrics-agent:2.4"
	metrics.Image = policydata.Image{From: policydata.GuestPull, Source: "registry.example/metrics-agent:2.4"}
	metrics.OCI.Process.User = policydata.User{UID: 65534, GID: 65534, AdditionalGids: []uint32{65534}}
	metrics.Args = []string{"/metrics-agent", "--listen=:9100"}
	shopWeb(p, s)
	if err := p.Validate(); err != nil {
		tb.Fatal(err)
	}
	return p
}

func shopWeb(p *policydata.Policy, s *settings.Settings) {
	web := p.Containers["web"]
	web.Args = []string{"/bin/web", "--listen=:8080", "--log=json"}
	web.Env.Fixed = []string{"DB_HOST=db.prod.svc", "DB_PASSWORD=correct-horse-battery", "LOG_LEVEL=info", "PATH=/usr/local/bin:/usr/bin:/bin"}
	web.Env.Templates["POD_NAME"] = "$(sandbox-name)"
	web.Env.Patterns["POD_IP"] = "^[0-9.]+$"
	web.Exec = [][]string{{"/bin/web", "--check"}}
	web.OCI.Process.User = policydata.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 2000}}
	web.NoNewPrivs, web.ReadonlyRoot = true, true
	web.Annotations.Fixed = map[string]string{"example.com/team": "shop"}
	web.Sysctl.Fixed = map[string]string{"net.core.somaxconn": "1024"}
	config, memory, block := s.Generate.Volumes["config"], s.Generate.Volumes["memory"], s.Generate.Volumes["block-encrypted"]
	web.Mounts["/etc/shop"] = named(config.Mount, "config")
	web.Mounts["/tmp"] = named(memory.Mount, "/run/kata-containers/sandbox/ephemeral/tmp")
	scratch := *memory.Storage
	scratch.MountPoint = "/run/kata-containers/sandbox/ephemeral/tmp"
	web.Mounts["/data"] = named(block.Mount, "data")
	web.Storages = []policydata.Storage{scratch, *block.Storage}
}

func named(m policydata.Mount, source string) policydata.Mount {
	m.Source = source
	return m
}

func shopPause(s *settings.Settings) *policydata.Container {
	return &policydata.Container{
		Annotations: policydata.Annotations{Patterns: s.Generate.Sandbox.Annotations},
		Args:        s.Generate.PauseArgs, BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env:        policydata.Env{Fixed: []string{"PATH=/usr/bin:/bin"}},
		Image:      policydata.Image{From: policydata.GuestPull, Source: "pause"},
		Mounts:     mounts(s.Generate.Sandbox.Mounts, "ro"),
		Namespaces: []string{"ipc", "uts", "mount"}, NoNewPrivs: true, ReadonlyRoot: true,
		Sysctl: policydata.Sysctl{Optional: s.Generate.Sandbox.Sysctl},
		Type:   policydata.TypeSandbox, OCI: policydata.OCI{Process: policydata.OCIProcess{User: policydata.User{UID: 65535, GID: 65535, AdditionalGids: []uint32{65535}}}},
	}
}

func shopContainer(s *settings.Settings, name, image string) *policydata.Container {
	digest := "sha256:" + strings.Repeat(fmt.Sprintf("%02x", len(name)), 32)
	image += "@" + digest
	c := &policydata.Container{
		BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env: policydata.Env{
			Fixed:     []string{"PATH=/usr/bin:/bin"},
			Patterns:  maps.Clone(s.Generate.Container.EnvPatterns),
			Templates: maps.Clone(s.Generate.Container.EnvTemplates),
		},
		OCI:        policydata.OCI{Annotations: policydata.OCIAnnotations{ImageName: image}, Process: policydata.OCIProcess{User: policydata.User{AdditionalGids: []uint32{0}}}},
		Image:      policydata.Image{Digest: digest, From: policydata.GuestPull, Source: image},
		Mounts:     mounts(s.Generate.Container.Mounts, "rw"),
		Namespaces: []string{"ipc", "uts", "mount"},
		Sysctl:     policydata.Sysctl{Optional: s.Generate.Container.Sysctl},
		Type:       policydata.TypeContainer,
	}
	if c.Env.Patterns == nil {
		c.Env.Patterns = map[string]string{}
	}
	if c.Env.Templates == nil {
		c.Env.Templates = map[string]string{}
	}
	return c
}

// mounts copies a template's mounts with their placeholders filled.
func mounts(template map[string]policydata.Mount, rw string) map[string]policydata.Mount {
	out := maps.Clone(template)
	for destination, m := range out {
		text := strings.Join(m.Options, "\n")
		m.Options = strings.Split(strings.NewReplacer("$(rw)", rw, "$(privileged-rw)", "ro").Replace(text), "\n")
		out[destination] = m
	}
	return out
}

// The file serves the tests of the commands too.
func TestShopFileIsFresh(t *testing.T) {
	want, err := shop(t).JSON()
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(shopFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(shopFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go test ./rules/explain -update", shopFile)
	}
}
