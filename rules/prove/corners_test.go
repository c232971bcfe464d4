// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

// corner is a pair of policies that differ where values drawn at random hardly ever do: b allows what a denies by a check.
type corner struct {
	check      string
	both, a, b func(*policydata.Policy) // changes of the shop's policy; nil for none
}

func waitFor(p *policydata.Policy, waits, container string, state policydata.State) {
	c := *p.Containers[container]
	c.After = []policydata.After{{Container: container, State: state}}
	p.Containers[waits] = &c
}

func bind(source string) policydata.Mount {
	return policydata.Mount{From: policydata.MountExact, Options: []string{"rbind"}, Source: source, Type: "bind"}
}

var corners = map[string]corner{
	"a signal that stops, where the other takes all that do not": {check: "signal",
		both: func(p *policydata.Policy) { p.Strict.Lifecycle = policydata.Free },
		b:    func(p *policydata.Policy) { p.Containers["web"].StopSignal = 19 }},
	"a container that runs once, as one of the other policy alone waits for it": {check: "order",
		both: func(p *policydata.Policy) {
			p.Order = policydata.OrderFree
			for _, c := range p.Containers {
				c.After = nil
			}
		},
		a: func(p *policydata.Policy) {
			p.Order = policydata.OrderEnforced
			waitFor(p, "waits", "web", policydata.Succeeded)
		}},
	"the pod's name in an argument, by a pattern that is anchored twice": {check: "args",
		both: func(p *policydata.Policy) { p.Sandbox.Name = `^^web-[0-9]$$` },
		a:    func(p *policydata.Policy) { p.Containers["web"].Args[0] = "none" },
		b:    func(p *policydata.Policy) { template(p, "--pod=$(sandbox-name)") }},
	"the pod's name in an argument, by a pattern with a boundary of words": {check: "args",
		both: func(p *policydata.Policy) { p.Sandbox.Name = `^\bweb-[0-9]\b$` },
		a:    func(p *policydata.Policy) { p.Containers["web"].Args[0] = "none" },
		b:    func(p *policydata.Policy) { template(p, "pod$(sandbox-name)") }},
	"the pod's name in an argument, by a pattern with other anchors": {check: "args",
		both: func(p *policydata.Policy) { p.Sandbox.Name = `\Aweb-[0-9]\z` },
		a:    func(p *policydata.Policy) { p.Containers["web"].Args[0] = "none" },
		b:    func(p *policydata.Policy) { template(p, "pod $(sandbox-name)") }},
	"names of pods that no cluster has": {check: "identity",
		a: func(p *policydata.Policy) { p.Sandbox.Name = `^[!-~]+$` },
		b: func(p *policydata.Policy) { p.Sandbox.Name = `^[!-~ü]+$` }},
	"a masked path that the list has twice": {check: "paths",
		b: func(p *policydata.Policy) {
			paths := p.Common.Paths[p.Containers["web"].Paths]
			paths.Masked = append(paths.Masked, paths.Masked[0])
			p.Common.Paths[p.Containers["web"].Paths] = paths
		}},
	"a fixed annotation with a key that no other check reads": {check: "annotations",
		both: func(p *policydata.Policy) { p.Strict.Annotations = policydata.Optional },
		a: func(p *policydata.Policy) {
			p.Containers["web"].Annotations.Fixed["io.kubernetes.cri.sandbox-uid"] = "00000000-0000-0000-0000-000000000000"
		}},
	"an image without a name": {check: "image",
		a: func(p *policydata.Policy) {
			c := p.Containers["web"]
			c.Image.Also, c.Image.Digest = append(c.Image.Also, ""), ""
		},
		b: func(p *policydata.Policy) {
			c := p.Containers["web"]
			c.Image.Also, c.Image.Digest = append(c.Image.Also, "", c.OCI.Annotations.ImageName), ""
			c.OCI.Annotations.ImageName = ""
		}},
	"a storage that the agent keeps in step in one policy alone": {check: "storages",
		both: func(p *policydata.Policy) {
			p.Containers["web"].Storages = append(p.Containers["web"].Storages, policydata.Storage{Driver: "watchable-bind", FSType: "bind",
				DriverOptions: []string{}, Options: []string{"rbind"}, MountPoint: "/run/w/watchable/x", Source: "/run/w/x"})
			p.Containers["web"].Mounts["/w"] = bind("/run/w/watchable/x")
		},
		a: func(p *policydata.Policy) { p.Common.SharedDirs = append(p.Common.SharedDirs, "/run/w/watchable") }},
	"a base mount that is there twice, with other options": {check: "mounts",
		b: func(p *policydata.Policy) {
			at := p.Containers["web"].BaseMounts
			first := p.Common.Mounts[at][0]
			first.Options = append([]string{"dirsync"}, first.Options...)
			p.Common.Mounts[at] = append([]policydata.ExactMount{first}, p.Common.Mounts[at]...)
		}},
	"input of commands, in a pod without containers": {check: "streams",
		both: func(p *policydata.Policy) { p.Strict.Lifecycle = policydata.Free },
		b: func(p *policydata.Policy) {
			p.Containers = nil
			p.Requests.Exec.Stdin = true
		}},
	"a variable whose hash is empty": {check: "env",
		both: func(p *policydata.Policy) {
			p.Strict.Env, p.Strict.ExecEnv = policydata.Optional, policydata.Optional
			p.Common.Env.Whole = append(p.Common.Env.Whole, "^[A-Z]+=x$")
		},
		a: func(p *policydata.Policy) { p.Containers["web"].Env.Hashes = map[string]string{"NOTHING": ""} }},
	"variables with a space in their names": {check: "env",
		both: func(p *policydata.Policy) {
			p.Strict.Env, p.Strict.ExecEnv = policydata.Optional, policydata.Optional
			p.Common.Env.Whole = []string{"^QQ ?[A-Z]=x$"}
		},
		a: func(p *policydata.Policy) {
			p.Containers["web"].Env.Fixed = append(p.Containers["web"].Env.Fixed, "QQQQ=1")
		}},
	"a variable with a space in its name that has to be there in one policy": {check: "env",
		a: func(p *policydata.Policy) {
			p.Containers["web"].Env.Optional = with(p.Containers["web"].Env.Optional, "PA TH", "^x$")
			p.Containers["web"].Env.Fixed = append(p.Containers["web"].Env.Fixed, "PAIR=1")
		},
		b: func(p *policydata.Policy) {
			p.Containers["web"].Env.Patterns = with(p.Containers["web"].Env.Patterns, "PA TH", "^x$")
			p.Containers["web"].Env.Fixed = append(p.Containers["web"].Env.Fixed, "PAIR=1")
		}},
	"a name of the image that annotations take, behind one that is fixed": {check: "image",
		both: func(p *policydata.Policy) {
			p.Containers["web"].Annotations.Fixed["io.kubernetes.cri.image-name"] = "another"
		},
		b: func(p *policydata.Policy) {
			p.Containers["web"].Annotations.Optional = map[string]string{"io.kubernetes.cri.image-name": "another"}
		}},
	"an annotation of a device that is passed through, and fixed in one policy": {check: "annotations",
		both: func(p *policydata.Policy) {
			p.Strict.Annotations = policydata.Optional
			p.Containers["web"].VFIO = policydata.VFIO{Annotation: "^nvidia.com/gpu=[0-9]$", Count: 1, Path: "/dev/vfio/devices/vfio", Type: "vfio-pci-gk"}
		},
		a: func(p *policydata.Policy) {
			for _, key := range []string{"cdi.k8s.io/vfio0", "cdi.k8s.io/vfio1"} {
				p.Containers["web"].Annotations.Fixed[key] = "other"
			}
		}},
	"a directory of the host in one policy, and of the guest in the other": {check: "storages",
		both: func(p *policydata.Policy) {
			p.Containers["web"].Storages = append(p.Containers["web"].Storages, policydata.Storage{Driver: "local", FSType: "local", Source: "local",
				DriverOptions: []string{}, Options: []string{}, MountPoint: "/run/w/" + rulestest.ID(policydata.SandboxContainer) + "/rootfs/local/x"})
		},
		a: func(p *policydata.Policy) { p.Common.SharedDirs = append(p.Common.SharedDirs, "/run/w") }},
	"input of a container that does not exist": {check: "streams",
		both: func(p *policydata.Policy) {
			p.Strict.Lifecycle = policydata.Free
			p.Requests.Exec.Stdin = true
			for _, c := range p.Containers {
				c.Stdin = true
			}
		},
		b: func(p *policydata.Policy) { p.Requests.WriteStream = true }},
	"a letter beyond ASCII that folds to one": {check: "args",
		a: func(p *policydata.Policy) { match(p, "^[kK]$") },
		b: func(p *policydata.Policy) { match(p, "^(?i:k)$") }},
	"a line feed": {check: "args",
		a: func(p *policydata.Policy) { match(p, "^.*$") },
		b: func(p *policydata.Policy) { match(p, "^(?s:.*)$") }},
	"an alternative that is longer": {check: "args",
		a: func(p *policydata.Policy) { match(p, "^(?:a|ab)(?:c|bcd)$") },
		b: func(p *policydata.Policy) { match(p, "^(?:a|ab)(?:c|bcd|bbcd)$") }},
	"a class that excludes": {check: "args",
		a: func(p *policydata.Policy) { match(p, "^[^=/]*$") },
		b: func(p *policydata.Policy) { match(p, "^[^=]*$") }},
	"one repetition more": {check: "args",
		a: func(p *policydata.Policy) { match(p, "^(?:x[0-9]){0,19}$") },
		b: func(p *policydata.Policy) { match(p, "^(?:x[0-9]){0,20}$") }},
	"a variable of one name by a pattern of all": {check: "env",
		a: func(p *policydata.Policy) { p.Common.Env.Whole = []string{"^[A-Z]+_PORT=[0-9]+$"} },
		b: func(p *policydata.Policy) {
			p.Common.Env.Whole = []string{"^[A-Z]+_PORT=[0-9]+$"}
			p.Common.Env.Names = map[string]string{"A_PORT": "^[0-9]*$"}
		}},
	"a variable that a name of the other policy hides": {check: "env",
		both: func(p *policydata.Policy) { p.Common.Env.Whole = []string{"^[A-Z_]+=[0-9]+$"} },
		a:    func(p *policydata.Policy) { p.Containers["web"].Env.Optional = map[string]string{"A_PORT": "^80$"} }},
	"a command joined of other words": {check: "exec_command",
		a: func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"ps", "a b"}} },
		b: func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"ps", "a", "b"}} }},
	"an empty command": {check: "exec_command",
		b: func(p *policydata.Policy) { p.Containers["web"].Exec = append(p.Containers["web"].Exec, []string{}) }},
	"a terminal for commands that a pattern lists": {check: "exec_process",
		both: func(p *policydata.Policy) { p.Requests.Exec.Joined = []string{"^ps$"} },
		b:    func(p *policydata.Policy) { p.Requests.Exec.Terminal = true }},
	"a group more than once": {check: "process",
		b: func(p *policydata.Policy) {
			p.Containers["web"].OtherUsers = append(p.Containers["web"].OtherUsers, policydata.User{UID: 5, AdditionalGids: []uint32{5, 5}})
		}, a: func(p *policydata.Policy) {
			p.Containers["web"].OtherUsers = append(p.Containers["web"].OtherUsers, policydata.User{UID: 5, AdditionalGids: []uint32{5}})
		}},
	"a capability more than once": {check: "capabilities",
		b: func(p *policydata.Policy) {
			sets := p.Common.Capabilities[p.Containers["web"].Capabilities]
			sets.Bounding = append(sets.Bounding, sets.Bounding[0])
			p.Common.Capabilities[p.Containers["web"].Capabilities] = sets
		}},
	"no path to be masked": {check: "paths",
		both: func(p *policydata.Policy) {
			p.Strict.Paths = policydata.Optional
			paths := p.Common.Paths[p.Containers["web"].Paths]
			paths.Masked = paths.Masked[:1]
			p.Common.Paths[p.Containers["web"].Paths] = paths
		},
		b: func(p *policydata.Policy) {
			paths := p.Common.Paths[p.Containers["web"].Paths]
			paths.Masked = []string{}
			p.Common.Paths[p.Containers["web"].Paths] = paths
		}},
	"a place in a volume at which a mount of the other policy lies": {check: "copy_link",
		a: func(p *policydata.Policy) {
			p.Containers["web"].Mounts["/v"] = policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "v", Type: "bind"}
			optional := bind("/x")
			optional.MayBeMissing = true
			p.Containers["web"].Mounts["/v/a/b"] = optional
		},
		b: func(p *policydata.Policy) {
			p.Containers["web"].Mounts["/v"] = policydata.Mount{From: policydata.MountShared, Options: []string{"ro"}, Source: "v", Type: "bind"}
		}},
}

func template(p *policydata.Policy, text string) {
	p.Containers["web"].ArgMatches["0"] = policydata.Match{Template: text}
}

func match(p *policydata.Policy, pattern string) {
	p.Containers["web"].ArgMatches["0"] = policydata.Match{Pattern: pattern}
}

func (c corner) policies(t *testing.T, shop *policydata.Policy) (a, b *policydata.Policy) {
	t.Helper()
	of := func(changes ...func(*policydata.Policy)) *policydata.Policy {
		return changed(t, shop, func(p *policydata.Policy) {
			for _, change := range changes {
				if change != nil {
					change(p)
				}
			}
		})
	}
	return of(c.both, c.a), of(c.both, c.b)
}

// TestCornersAreNoProofs: differences between policies that the rules make, however odd the policies.
func TestCornersAreNoProofs(t *testing.T) {
	prover, shop := newProver(t), data(t, pods[0])
	for name, c := range corners {
		t.Run(name, func(t *testing.T) {
			first, second := c.policies(t, shop)
			a, b := load(t, prover, first), load(t, prover, second)
			r, err := prover.Within(t.Context(), a, b)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != prove.Refuted || r.Witness.Check != c.check {
				t.Fatalf("%s: %+v%+v", r.Verdict, r.Open, r.Looser)
			}
			confirm(t, a, b, r.Witness)
		})
	}
}

// TestVolumesAreToldApart: names that read alike when they are put together are others.
func TestVolumesAreToldApart(t *testing.T) {
	prover := newProver(t)
	block := func(source string) policydata.Mount {
		return policydata.Mount{From: policydata.MountStorage, Options: []string{"ro"}, Source: source, Type: "bind"}
	}
	pod := func(first, second, third, fourth string) *prove.Policy {
		return load(t, prover, changed(t, data(t, pods[0]), func(p *policydata.Policy) {
			for name, m := range map[string]map[string]policydata.Mount{
				"a": {"b:/x": block(first)}, "a:b": {"/x": block(second)}, "c": {"d:/y": block(third)}, "c:d": {"/y": block(fourth)},
			} {
				c := *p.Containers["web"]
				c.Mounts = m
				p.Containers[name] = &c
			}
		}))
	}
	r, err := prover.Within(t.Context(), pod("v", "w", "v", "w"), pod("v", "w", "w", "v"))
	if err != nil || r.Verdict == prove.Proven {
		t.Errorf("%+v (%v)", r, err)
	}
}
