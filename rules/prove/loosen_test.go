// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/prove"
)

var forceLoosenings = flag.Int("loosenings", 46, "loosen so many policies in one value")

// loosening changes one value so that more is allowed. It says no where a policy has nothing to be loosened so.
type loosening struct {
	about string
	apply func(l loose) bool
}

// loose is a policy, and one of its containers, to be loosened.
type loose struct {
	*policydata.Policy
	name string
	c    *policydata.Container
	rand *rand.Rand
}

var loosenings = []loosening{
	{"an argument becomes a pattern", func(l loose) bool {
		if len(l.c.Args) == 0 {
			return false
		}
		key := fmt.Sprint(l.rand.IntN(len(l.c.Args)))
		_, was := l.c.ArgMatches[key]
		l.c.ArgMatches[key] = policydata.Match{Pattern: "^(?s:.*)$"}
		return !was
	}},
	{"a command in a container", func(l loose) bool { l.c.Exec = append(l.c.Exec, []string{"sh", "-c", "id"}); return true }},
	{"a command in every container", func(l loose) bool {
		l.Requests.Exec.Commands = append(l.Requests.Exec.Commands, []string{"ps"})
		return true
	}},
	{"commands by a pattern", func(l loose) bool {
		l.Requests.Exec.Joined = append(l.Requests.Exec.Joined, "^cat [a-z/]+$")
		return true
	}},
	{"output", func(l loose) bool { return turn(&l.Requests.ReadStream) }},
	{"input", func(l loose) bool { return turn(&l.Requests.WriteStream) }},
	{"end of input", func(l loose) bool { return !l.c.Stdin && turn(&l.Requests.CloseStdin) }},
	{"input of a container", func(l loose) bool { return turn(&l.c.Stdin) }},
	{"diagnostic data", func(l loose) bool { return turn(&l.Requests.GetDiagnosticData) }},
	{"ephemeral mounts", func(l loose) bool { return turn(&l.Requests.UpdateEphemeralMounts) }},
	{"a request", func(l loose) bool {
		name := pick(l.rand, []string{"GetMetricsRequest", "ListRoutesRequest", "SetGuestDateTimeRequest", "ReseedRandomDevRequest", "MemHotplugByProbeRequest"})
		if slices.Contains(l.Requests.Allow, name) {
			return false
		}
		l.Requests.Allow = append(l.Requests.Allow, name)
		return true
	}},
	{"flags of interfaces", func(l loose) bool {
		was := l.Requests.Interface.RawFlags
		l.Requests.Interface.RawFlags |= 1 << (8 + l.rand.IntN(8))
		return l.Requests.Interface.RawFlags != was
	}},
	{"a name of an interface", func(l loose) bool { return shorten(&l.Requests.Interface.ForbiddenNames, l.rand) }},
	{"a device of routes", func(l loose) bool { return shorten(&l.Requests.Routes.ForbiddenDevices, l.rand) }},
	{"flags of neighbours", func(l loose) bool {
		was := l.Requests.AddARPNeighbors.Flags
		l.Requests.AddARPNeighbors.Flags |= 1 << (1 + l.rand.IntN(7))
		return l.Requests.AddARPNeighbors.Flags != was
	}},
	{"a state of neighbours", func(l loose) bool {
		l.Requests.AddARPNeighbors.States = append(l.Requests.AddARPNeighbors.States, uint32(1000+l.rand.IntN(10)))
		return true
	}},
	{"a device of neighbours", func(l loose) bool { return shorten(&l.Requests.AddARPNeighbors.ForbiddenDevices, l.rand) }},
	{"order", func(l loose) bool {
		waits := slices.ContainsFunc(slices.Collect(maps.Values(l.Containers)), func(c *policydata.Container) bool { return len(c.After) > 0 })
		was := l.Order
		l.Order = policydata.OrderFree
		return waits && was == policydata.OrderEnforced
	}},
	{"strict.annotations", func(l loose) bool { return lower(&l.Strict.Annotations, policydata.Free) }},
	{"strict.container_id", func(l loose) bool { return lower(&l.Strict.ContainerID, policydata.Free) }},
	{"strict.env", func(l loose) bool { return lower(&l.Strict.Env, policydata.Optional) }},
	{"strict.image", func(l loose) bool {
		return l.c.Image.From == policydata.GuestPull && lower(&l.Strict.Image, pick(l.rand, []policydata.Level{policydata.Optional, policydata.Free}))
	}},
	{"strict.instances", func(l loose) bool { return lower(&l.Strict.Instances, policydata.Free) }},
	{"strict.lifecycle", func(l loose) bool { return lower(&l.Strict.Lifecycle, policydata.Free) }},
	{"strict.mounts", func(l loose) bool { return lower(&l.Strict.Mounts, policydata.Optional) }},
	{"strict.paths", func(l loose) bool { return lower(&l.Strict.Paths, policydata.Optional) }},
	{"a variable of every container", func(l loose) bool {
		l.Common.Env.Whole = append(l.Common.Env.Whole, "^[A-Z]+_SUFFIX=[a-z]*$")
		return true
	}},
	{"a name of a variable", func(l loose) bool {
		if l.Common.Env.Names == nil {
			l.Common.Env.Names = map[string]string{}
		}
		l.Common.Env.Names["ANYTHING"] = "^[0-9]+$"
		return true
	}},
	{"a variable that may be there", func(l loose) bool {
		l.c.Env.Optional = with(l.c.Env.Optional, "LD_PRELOAD", "^(?s:.*)$")
		return true
	}},
	{"an image's name", func(l loose) bool {
		l.c.Image.Also = append(l.c.Image.Also, "registry.example/other:1")
		l.c.Image.Digest = ""
		return l.Strict.Image != policydata.Free
	}},
	{"a mount that may be missing", func(l loose) bool {
		at := slices.Sorted(maps.Keys(l.c.Mounts))
		if len(at) == 0 || l.Strict.Mounts != policydata.Required {
			return false
		}
		key := pick(l.rand, at)
		m := l.c.Mounts[key]
		was := m.MayBeMissing
		m.MayBeMissing = true
		l.c.Mounts[key] = m
		return !was
	}},
	{"an option of a mount", func(l loose) bool {
		at := slices.Sorted(maps.Keys(l.c.Mounts))
		if len(at) == 0 {
			return false
		}
		key := pick(l.rand, at)
		m := l.c.Mounts[key]
		m.ExtraOptions = append(m.ExtraOptions, "dev")
		l.c.Mounts[key] = m
		return true
	}},
	{"an emptyDir that is copied", func(l loose) bool {
		for _, key := range slices.Sorted(maps.Keys(l.c.Mounts)) {
			if m := l.c.Mounts[key]; m.From == policydata.MountLocal && l.SharesNothing() {
				m.Copied = "^/run/kata-containers/shared/containers/[0-9a-z-]+$"
				l.c.Mounts[key] = m
				return true
			}
		}
		return false
	}},
	{"contents of a mount", func(l loose) bool {
		for _, key := range slices.Sorted(maps.Keys(l.c.Mounts)) {
			if m := l.c.Mounts[key]; m.Contents != nil {
				m.Contents = nil
				l.c.Mounts[key] = m
				return true
			}
		}
		return false
	}},
	{"other files in a mount", func(l loose) bool {
		for _, key := range slices.Sorted(maps.Keys(l.c.Mounts)) {
			if m := l.c.Mounts[key]; m.Contents != nil && !m.Contents.Open {
				m.Contents.Open = true
				return true
			}
		}
		return false
	}},
	{"another user", func(l loose) bool {
		l.c.OtherUsers = append(l.c.OtherUsers, policydata.User{UID: uint32(2000 + l.rand.IntN(100)), GID: 7})
		return true
	}},
	{"a namespace", func(l loose) bool { was := l.Sandbox.Namespace; l.Sandbox.Namespace = ""; return was != "" }},
	{"the pod's name", func(l loose) bool {
		was := l.Sandbox.Name
		l.Sandbox.Name = "^[a-z0-9.-]{1,253}$"
		return was != l.Sandbox.Name && !strings.Contains(was, ".*")
	}},
	{"an annotation", func(l loose) bool {
		l.c.Annotations.Optional = with(l.c.Annotations.Optional, "example.org/more", "x")
		return true
	}},
	{"annotations by a pattern", func(l loose) bool {
		l.c.Annotations.Patterns = with(l.c.Annotations.Patterns, "example.org/any", "^[a-z]*$")
		return true
	}},
	{"a version", func(l loose) bool { l.Common.OCIVersions = append(l.Common.OCIVersions, "9.9.9"); return true }},
	{"a profile", func(l loose) bool { l.Common.AppArmor = append(l.Common.AppArmor, "unconfined"); return true }},
	{"a writable root", func(l loose) bool { was := l.c.ReadonlyRoot; l.c.ReadonlyRoot = false; return was }},
	{"new privileges", func(l loose) bool { was := l.c.NoNewPrivs; l.c.NoNewPrivs = false; return was }},
	{"a terminal", func(l loose) bool { return turn(&l.c.Terminal) }},
	{"root", func(l loose) bool {
		was := l.c.OCI.Process.User.UID
		l.c.OCI.Process.User.UID = 0
		return was != 0
	}},
	{"a capability", func(l loose) bool {
		sets := l.Common.Capabilities[l.c.Capabilities]
		sets.Bounding = append(slices.Clone(sets.Bounding), "CAP_SYS_PTRACE")
		l.Common.Capabilities[l.c.Capabilities] = sets
		return true
	}},
	{"a path that is not masked", func(l loose) bool {
		paths := l.Common.Paths[l.c.Paths]
		if !shorten(&paths.Masked, l.rand) {
			return false
		}
		l.Common.Paths[l.c.Paths] = paths
		return l.Strict.Paths == policydata.Required
	}},
	{"a source of shared files", func(l loose) bool {
		shared := slices.ContainsFunc(slices.Collect(maps.Values(l.c.Mounts)), func(m policydata.Mount) bool { return m.From == policydata.MountShared })
		l.Common.SharedSources = append(l.Common.SharedSources, "^/srv/[a-z]+$")
		return shared
	}},
}

func turn(b *bool) bool { was := *b; *b = true; return !was }

func lower(level *policydata.Level, to policydata.Level) bool {
	was := *level
	*level = to
	return was == policydata.Required
}

func shorten[T any](list *[]T, r *rand.Rand) bool {
	if len(*list) == 0 {
		return false
	}
	i := r.IntN(len(*list))
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return true
}

func with(m map[string]string, key, value string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}

// Policies are loosened in one value each, which a proof must notice: the old one allows no longer all that the new one does, and a
// witness shows it that other engines confirm. The old one stays within the new one where a value was only added.
func TestLooseningsAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(*forceSeed, 1))
	var made []mutant
	kinds := map[string]bool{}
	for n := 0; len(made) < *forceLoosenings; n++ {
		if n > 100*(*forceLoosenings) {
			t.Fatalf("only %d loosenings can be made", len(made))
		}
		p := pick(r, pods)
		original := data(t, p)
		if n%4 == 0 {
			original.Order = policydata.OrderEnforced
		}
		kind := loosenings[n%len(loosenings)]
		out := changed(t, original, func(*policydata.Policy) {})
		name := pick(r, slices.Sorted(maps.Keys(out.Containers)))
		if kind.apply(loose{out, name, out.Containers[name], r}) && out.Validate() == nil {
			kinds[kind.about] = true
			made = append(made, mutant{fmt.Sprintf("%v, %s: %s", p, name, kind.about), original, out})
		}
	}
	prover, tally := newProver(t), map[prove.Verdict]int{}
	var witnesses []shown
	for _, m := range made {
		result, err := prover.Within(t.Context(), load(t, prover, m.original), load(t, prover, m.changed))
		if err != nil {
			t.Fatalf("%s: %v", m.about, err)
		}
		tally[result.Verdict]++
		switch result.Verdict {
		case prove.Refuted:
			witnesses = append(witnesses, shown{m.about, m.original, m.changed, result.Witness})
		case prove.Proven:
			t.Errorf("%s: proven to allow no more", m.about)
		case prove.Unknown:
			t.Logf("%s: unknown: %+v", m.about, result.Open)
		}
	}
	t.Logf("%d loosenings of %d kinds: %v", len(made), len(kinds), tally)
	if tooMany(tally[prove.Unknown], len(made), 2) {
		t.Errorf("%v: more than 2 %% are unknown", tally)
	}
	onOtherEngines(t, witnesses)
}
