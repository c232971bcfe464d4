// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"strings"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

const (
	below  = "/run/kata-containers/shared/containers/"
	random = "-0123456789abcdef-"
)

// copied is a container whose emptyDirs come as directories that were copied, by destination, and not as the guest's own.
func (p *pod) copied(container string, sources map[string]string) rulestest.Request {
	return p.create(container, func(_, oci, input map[string]any) {
		for _, m := range oci["Mounts"].([]any) {
			if m := m.(map[string]any); sources[m["destination"].(string)] != "" {
				m["type_"], m["source"] = "bind", sources[m["destination"].(string)]
			}
		}
		input["storages"] = input["storages"].([]any)[:1] // the image
	})
}

// An emptyDir of a peer pod is in the guest: a directory that the agent makes, or that it makes for the copy of an empty one.
func TestAnEmptyDirIsInTheGuestUnlessTheSettingsShareIt(t *testing.T) {
	shared := hostilePod(t, blogPod, "peer-pods", "[generate]\nempty_dir = \"shared\"\n")
	at, create := shared.below("blog", "/scratch"), shared.emulator.CreateContainer("blog")
	shared.allowed(rulestest.CopyFile(at, "Directory"))
	shared.allowed(create)
	shared.denied(file(at+"/run.sh", "#!/bin/sh"), "content")
	shared.denied(link(at+"/out", "run.sh"), "content")

	hostilePod(t, blogPod, "peer-pods", "").allowed(shared.emulator.CreateContainer("blog")) // what shims before 4.1 copy
	hostilePod(t, blogPod, "peer-pods", "").allowed(hostilePod(t, blogPod, "peer-pods", "").emulator.CreateContainer("blog"))
	for name, over := range map[string]string{
		"guest-pull": "", "host-pull": "[generate]\nempty_dir = \"local\"\n", "non-coco": "[generate]\nempty_dir = \"local\"\n",
		"peer-pods": "[strict]\nmounts = \"optional\"\n", // where the host may copy what no mount has
	} {
		other := hostilePod(t, blogPod, name, over)
		for _, source := range []string{at, below + "sandbox" + random + "scratch"} {
			other.denied(other.copied("blog", map[string]string{"/scratch": source}), "mounts")
		}
	}
}

// The host makes the directory, and copies nothing into it: not before its container, not beside it.
func TestNothingIsCopiedIntoAnEmptyDir(t *testing.T) {
	for _, at := range []string{below + "sandbox" + random + "scratch", below + rulestest.ID("blog") + random + "scratch"} {
		p := hostilePod(t, blogPod, "peer-pods", "")
		create := p.copied("blog", map[string]string{"/scratch": at})
		hostile := func() {
			t.Helper()
			p.allowed(rulestest.CopyFile(at, "Directory"))
			p.denied(file(at, "#!/bin/sh"), "content")
			p.denied(file(at+"/run.sh", "#!/bin/sh"), "content")
			p.denied(rulestest.CopyFile(at+"/more", "Directory"), "content")
			p.denied(rulestest.CopyFile(at+"/..2026_01_02_03_04_05.6", "Directory"), "content")
			p.denied(link(at+"/..data", "..2026_01_02_03_04_05.6"), "content")
			p.denied(link(at+"/out", "run.sh"), "content")
			p.denied(link(at, "other"), "")
		}
		hostile()
		p.allowed(create)
		p.allowed(lifecycle("StartContainerRequest", "blog"))
		hostile()
	}
}

func TestADirectoryForAnEmptyDirIsItsOwn(t *testing.T) {
	p := hostilePod(t, blogPod, "peer-pods", "")
	id := rulestest.ID("blog")
	for _, source := range []string{
		below + "sandbox" + random + "other", below + "sandbox" + random + "x-scratch", below + "sandbox" + random + "scratch/in",
		below + "sandbox" + random + "scratch/../../secret", below + "sandbox-0123-scratch", below + "passthrough/sandbox" + random + "scratch",
		below + rulestest.ID("other") + random + "scratch", below + id + random + "hosts", below + id + random + "scratch/..",
		below + id + "/rootfs", "/run/kata-containers/" + id + "/rootfs", "/etc", "/run/kata-containers/sandbox/shm",
	} {
		p.denied(p.copied("blog", map[string]string{"/scratch": source}), "mounts")
	}
	both := p.copied("blog", map[string]string{"/scratch": below + "sandbox" + random + "scratch"})
	p.denied(with(both, map[string]any{"storages": p.emulator.CreateContainer("blog").Input["storages"]}), "storages") // the guest's own beside it
	p.denied(p.create("blog", func(_, oci, input map[string]any) {
		mounts := oci["Mounts"].([]any)
		mounts[len(mounts)-1].(map[string]any)["source"] = below + "sandbox" + random + "scratch"
		input["storages"] = input["storages"].([]any)[:1]
	}), "mounts") // of the type of the guest's own
	p.denied(rulestest.CopyFile(below+"sandbox"+random+"other", "Directory"), "content")
	p.denied(file(below+"sandbox"+random+"hosts", "1.2.3.4 db"), "content")
	p.denied(rulestest.CopyFile(below+"sandbox"+random+"scratch/..", "Directory"), "path")
	p.allowed(both)
}

const sharingPod = `apiVersion: v1
kind: Pod
metadata: {name: sharing, namespace: prod}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: one, image: "registry.example/blog:6", volumeMounts: [{name: scratch, mountPath: /scratch}, {name: cache, mountPath: /cache}]}
  - {name: two, image: "registry.example/blog:6", volumeMounts: [{name: scratch, mountPath: /scratch}]}
  - {name: three, image: "registry.example/blog:6", volumeMounts: [{name: names, mountPath: /x/hosts}]}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: cache, emptyDir: {}}
  - {name: names, emptyDir: {}}
`

// Containers that share an emptyDir have the same directory, whichever form it has and while the pod is there; no volume has
// another's.
func TestAnEmptyDirIsOneDirectoryInEveryContainer(t *testing.T) {
	wide := func(name string) string { return below + "sandbox" + random + name }
	scratch := func(p *pod, source string) rulestest.Request {
		return p.copied("two", map[string]string{"/scratch": source})
	}
	passthrough := func(p *pod) rulestest.Request {
		return p.create("two", func(_, oci, input map[string]any) {
			mounts, storages := oci["Mounts"].([]any), input["storages"].([]any)
			for _, at := range []any{mounts[len(mounts)-1], storages[len(storages)-1]} {
				for _, key := range []string{"source", "mount_point"} {
					if s, ok := at.(map[string]any)[key].(string); ok {
						at.(map[string]any)[key] = strings.Replace(s, "containers/", "containers/passthrough/", 1)
					}
				}
			}
		})
	}
	for name, first := range map[string]func(*pod) rulestest.Request{
		"copied": func(p *pod) rulestest.Request {
			return p.copied("one", map[string]string{"/scratch": wide("scratch"), "/cache": wide("cache")})
		},
		"the guest's": func(p *pod) rulestest.Request { return p.emulator.CreateContainer("one") },
	} {
		t.Run(name, func(t *testing.T) {
			p := hostilePod(t, sharingPod, "peer-pods", "")
			p.allowed(first(p))
			same, other := scratch(p, wide("scratch")), p.emulator.CreateContainer("two")
			if name != "copied" {
				same, other = other, same
			}
			hostile := func() {
				t.Helper()
				p.denied(other, "mounts")
				p.denied(passthrough(p), "mounts")
				p.denied(scratch(p, below+"sandbox-fedcba9876543210-scratch"), "mounts")
				p.denied(scratch(p, wide("cache")), "mounts")
				p.denied(scratch(p, below+rulestest.ID("two")+random+"scratch"), "mounts")
			}
			hostile()
			p.allowed(lifecycle("RemoveContainerRequest", "one"))
			hostile()
			p.allowed(same)
			p.allowed(first(p)) // once more
		})
	}
	p := hostilePod(t, sharingPod, "peer-pods", "")
	own := func(id, name string) string { return below + rulestest.ID(id) + random + name }
	p.denied(p.copied("one", map[string]string{"/scratch": own("one", "scratch"), "/cache": own("one", "cache")}), "mounts")
	p.denied(p.copied("three", map[string]string{"/x/hosts": own("three", "hosts")}), "mounts") // where the host may copy another file
	p.allowed(p.copied("one", map[string]string{"/scratch": wide("scratch"), "/cache": own("one", "cache")}))
	p.allowed(lifecycle("RemoveContainerRequest", "one"))
	p.allowed(p.copied("one", map[string]string{"/scratch": wide("scratch"), "/cache": below + rulestest.ID("one") + "-1111111111111111-cache"}))
}

// Neither a container that has the sandbox's id, of which the agent's directory is named, nor a second place in one container
// gives a volume another directory.
func TestAnEmptyDirIsOneDirectoryWhateverTheIDAndPlace(t *testing.T) {
	const other = below + "sandbox-fedcba9876543210-scratch"
	p := hostilePod(t, sharingPod, "peer-pods", "")
	p = &pod{t, p.emulator, judgeCompact(t, p.emulator.Policy)}
	p.emulator.Pod.SandboxID = rulestest.ID("one")
	p.allowed(p.emulator.CreateSandbox())
	p.allowed(p.emulator.CreateContainer("one"))
	p.allowed(lifecycle("RemoveContainerRequest", "one"))
	p.denied(p.copied("two", map[string]string{"/scratch": other}), "mounts")
	p.allowed(p.emulator.CreateContainer("two"))

	const places = "{name: scratch, mountPath: /scratch}, {name: scratch, mountPath: /again}"
	p = hostilePod(t, strings.Replace(sharingPod, "{name: scratch, mountPath: /scratch}", places, 1), "peer-pods", "")
	at := func(scratch, again string) rulestest.Request {
		return p.copied("one", map[string]string{"/scratch": scratch, "/again": again, "/cache": below + "sandbox" + random + "cache"})
	}
	p.denied(at(below+"sandbox"+random+"scratch", other), "mounts")
	p.allowed(at(other, other))
	p.allowed(p.copied("two", map[string]string{"/scratch": other}))
}

// Nor where a policy that was not generated, or was given mounts by a fragment, has the volume or the name elsewhere too.
func TestACopyForOneContainerIsAlone(t *testing.T) {
	own := below + rulestest.ID("one") + random + "cache"
	options := []string{"rbind", "rprivate", "rw"}
	for name, mount := range map[string]policydata.Mount{
		"the volume": {From: policydata.MountLocal, Source: "cache", Type: "local", Options: options},
		"the name":   {From: policydata.MountShared, Source: "cache", Type: "bind", Options: options},
		"neither":    {From: policydata.MountShared, Source: "caches", Type: "bind", Options: options},
	} {
		p := hostilePod(t, sharingPod, "peer-pods", "")
		p.emulator.Policy.Containers["three"].Mounts["/more"] = mount
		p = newPod(t, p.emulator.Policy, sandbox)
		wide := below + "sandbox" + random
		copied := p.copied("one", map[string]string{"/scratch": wide + "scratch", "/cache": own})
		if name == "neither" {
			p.allowed(copied)
			continue
		}
		p.denied(copied, "mounts")
		p.allowed(p.copied("one", map[string]string{"/scratch": wide + "scratch", "/cache": wide + "cache"}))
	}
}
