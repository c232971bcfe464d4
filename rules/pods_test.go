// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

const sandbox = policydata.SandboxContainer

// load returns an empty policy of a platform.
func load(tb testing.TB, platform string, dropIns ...string) (*policydata.Policy, *settings.Settings) {
	tb.Helper()
	var over []settings.DropIn
	for _, name := range dropIns {
		d, err := settings.Named(name)
		if err != nil {
			tb.Fatal(err)
		}
		over = append(over, d)
	}
	s, err := settings.Load(platform, over...)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := s.Policy()
	if err != nil {
		tb.Fatal(err)
	}
	return p, s
}

// richPod is a pod that uses what a manifest can use: two init containers, an application, a container with devices.
func richPod(tb testing.TB, dropIns ...string) *policydata.Policy {
	tb.Helper()
	p, s := load(tb, "guest-pull", dropIns...)
	p.Sandbox.Name, p.Sandbox.Namespace = "^shop-[0-9a-f]{8}-[bcdfghjklmnpqrstvwxz2456789]{5}$", "prod"
	p.Common.Capabilities["privileged"] = sets(s.Generate.PrivilegedCapabilities.Names)
	p.Containers[sandbox] = pause(s)
	for _, name := range []string{"init-db", "init-cache", "web", "gpu"} {
		p.Containers[name] = plain(s, name)
	}
	addWeb(p, s)
	addGPU(p, s)
	p.Containers["init-db"].After = []policydata.After{{Container: sandbox, State: policydata.Started}}
	p.Containers["init-cache"].After = []policydata.After{{Container: "init-db", State: policydata.Succeeded}}
	for _, name := range []string{"web", "gpu"} {
		p.Containers[name].After = []policydata.After{{Container: "init-cache", State: policydata.Succeeded}}
	}
	if err := p.Validate(); err != nil {
		tb.Fatal(err)
	}
	return p
}

func addWeb(p *policydata.Policy, s *settings.Settings) {
	web := p.Containers["web"]
	web.Args = []string{"serve", "--name=$(sandbox-name)", "--shard=7"}
	web.ArgMatches = map[string]policydata.Match{"1": {Template: "--name=$(sandbox-name)"}, "2": {Pattern: "^--shard=[0-9]+$"}}
	web.Env.Fixed = []string{"A_SERVICE_HOST=db", "EQUALS=a=b=c", "LEVEL=info", "PATH=/usr/bin:/bin"}
	maps.Copy(web.Env.Templates, map[string]string{"POD_NAME": "$(sandbox-name)", "URL": "http://$(sandbox-namespace).svc/$(sandbox-uid)"})
	web.Env.Patterns["POD_IP"] = "^[0-9.]+$"
	web.Env.Optional = map[string]string{"TOKEN_FILE": "^/var/run/token$"}
	web.Exec = [][]string{{"curl", "-f", "localhost"}, {"true"}}
	web.OCI.Process.User = policydata.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{10, 1000}}
	web.Sysctl.Fixed = map[string]string{"net.core.somaxconn": "1024"}
	web.Annotations.Fixed = map[string]string{"example.com/team": "shop"}
	web.PIDNS, web.Stdin, web.ReadonlyRoot = true, true, true
	shop := withSource(s.Generate.Volumes["config"].Mount, "shop")
	shop.Contents = &policydata.Contents{Files: map[string]policydata.File{"shop.conf": {SHA256: strings.Repeat("ab", 32), Size: 4, Mode: 0o644, Optional: true}}}
	web.Mounts["/etc/shop"] = shop
	web.Mounts["/cache"] = withSource(s.Generate.Volumes["memory"].Mount, "/run/kata-containers/sandbox/ephemeral/cache")
	memory := *s.Generate.Volumes["memory"].Storage
	memory.MountPoint = "/run/kata-containers/sandbox/ephemeral/cache"
	memory.FSGroup = &policydata.FSGroup{GID: 10}
	block := *s.Generate.Volumes["block-encrypted"].Storage
	web.Mounts["/data"] = withSource(s.Generate.Volumes["block-encrypted"].Mount, "data")
	web.Mounts["/scratch"] = withSource(s.Generate.Volumes["block-encrypted"].Mount, "scratch")
	web.Storages = []policydata.Storage{memory, block, block}
}

func addGPU(p *policydata.Policy, s *settings.Settings) {
	gpu := p.Containers["gpu"]
	gpu.Capabilities, gpu.Paths = "privileged", "privileged"
	gpu.Devices = []string{"/dev/data"}
	gpu.VFIO = policydata.VFIO{Count: 2, Path: s.Generate.VFIO.Path, Type: s.Generate.VFIO.Type, Annotation: s.Generate.VFIO.Annotation}
	gpu.Terminal = true
	gpu.Env.Fixed = append(gpu.Env.Fixed, "TERM=xterm")
}

func sets(names []string) policydata.Capabilities {
	return policydata.Capabilities{Bounding: names, Effective: names, Permitted: names}
}

func withSource(m policydata.Mount, source string) policydata.Mount {
	m.Source = source
	return m
}

func pause(s *settings.Settings) *policydata.Container {
	return &policydata.Container{
		Annotations: policydata.Annotations{Patterns: s.Generate.Sandbox.Annotations},
		Args:        []string{"/pause"}, BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env:        policydata.Env{Fixed: []string{"PATH=/usr/bin:/bin"}},
		Image:      policydata.Image{From: policydata.GuestPull, Source: "pause"},
		Mounts:     options(s.Generate.Sandbox.Mounts, "ro"),
		Namespaces: []string{"ipc", "uts", "mount"}, NoNewPrivs: true, ReadonlyRoot: true,
		Sysctl: policydata.Sysctl{Optional: s.Generate.Sandbox.Sysctl},
		Type:   policydata.TypeSandbox, OCI: policydata.OCI{Process: policydata.OCIProcess{User: policydata.User{UID: 65535, GID: 65535, AdditionalGids: []uint32{65535}}}},
	}
}

func plain(s *settings.Settings, name string) *policydata.Container {
	digest := "sha256:" + strings.Repeat(fmt.Sprintf("%02x", len(name)), 32)
	image := "registry.example/" + name + "@" + digest
	return &policydata.Container{
		Args: []string{"/bin/" + name}, BaseMounts: "default", Capabilities: "default", Paths: "default", Cwd: "/",
		Env: policydata.Env{
			Fixed:     []string{"NAME=" + name, "PATH=/usr/bin:/bin"},
			Patterns:  maps.Clone(s.Generate.Container.EnvPatterns),
			Templates: maps.Clone(s.Generate.Container.EnvTemplates),
		},
		Exec:       [][]string{},
		OCI:        policydata.OCI{Annotations: policydata.OCIAnnotations{ImageName: image}, Process: policydata.OCIProcess{User: policydata.User{AdditionalGids: []uint32{0}}}},
		Image:      policydata.Image{Digest: digest, From: policydata.GuestPull, Source: image},
		Mounts:     options(s.Generate.Container.Mounts, "rw"),
		Namespaces: []string{"ipc", "uts", "mount"},
		Sysctl:     policydata.Sysctl{Optional: s.Generate.Container.Sysctl},
		Type:       policydata.TypeContainer,
	}
}

// options copies a template's mounts with their placeholders filled.
func options(mounts map[string]policydata.Mount, rw string) map[string]policydata.Mount {
	out := maps.Clone(mounts)
	for destination, m := range out {
		text := strings.Join(m.Options, "\n")
		m.Options = strings.Split(strings.NewReplacer("$(rw)", rw, "$(privileged-rw)", "ro").Replace(text), "\n")
		out[destination] = m
	}
	return out
}

// onePod is the usual pod: pause and one container.
func onePod(tb testing.TB, dropIns ...string) *policydata.Policy {
	tb.Helper()
	p, s := load(tb, "guest-pull", dropIns...)
	p.Sandbox.Name, p.Sandbox.Namespace = "^web$", "default"
	p.Containers[sandbox] = pause(s)
	p.Containers["web"] = plain(s, "web")
	p.Prune()
	return p
}

// manyPod has pause and n containers with ten variables each.
func manyPod(tb testing.TB, n int) *policydata.Policy {
	tb.Helper()
	p, s := load(tb, "guest-pull")
	p.Sandbox.Name, p.Sandbox.Namespace = "^many$", "default"
	p.Containers[sandbox] = pause(s)
	for i := range n {
		name := fmt.Sprintf("container-%d", i)
		c := plain(s, name)
		for v := range 8 {
			c.Env.Fixed = append(c.Env.Fixed, fmt.Sprintf("VARIABLE_%d=value-%d", v, v))
		}
		p.Containers[name] = c
	}
	return p
}
