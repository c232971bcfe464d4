// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"path/filepath"
	"strings"
	"testing"

	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

func id(n string) string { return strings.Repeat(n, 32) }

// podBound is the policy of the pod in these tests.
var podBound = Bound{Alg: "sha256", Digest: make([]byte, 32)}

// podOfTwo has an init container and one that waits for it.
var podOfTwo = Pod{Complete: true, Containers: []PodContainer{
	{Name: "$sandbox"},
	{Name: "init", Images: []string{"init:1"}},
	{Name: "web", Images: []string{"web:1"}, Execs: []Command{{record.ArgsDigest([]string{"true"}), "true"}}, After: []After{{"init", true}}},
}}

func podCreated(n, name string) record.Fact {
	f := record.Fact{Kind: record.Created, ID: id(n), Name: name}
	if name != "$sandbox" {
		f.Image = name + ":1"
	}
	return f
}

func podFact(kind record.Kind, n, name string) record.Fact {
	return record.Fact{Kind: kind, ID: id(n), Name: name}
}

func podEnded(n, name string, code int32) record.Fact {
	return record.Fact{Kind: record.Ended, ID: id(n), Name: name, Code: &code}
}

// goodPod is the life of a complete pod.
func goodPod() []record.Fact {
	return []record.Fact{
		{Kind: record.Policy, Binding: "policy", Alg: "sha256", Digest: strings.Repeat("0", 64)},
		podFact(record.Sandbox, "01", ""), podCreated("01", "$sandbox"), podFact(record.Started, "01", "$sandbox"),
		podCreated("02", "init"), podFact(record.Started, "02", "init"), podEnded("02", "init", 0),
		podCreated("03", "web"), podFact(record.Started, "03", "web"), {Kind: record.Complete},
		{Kind: record.Exec, ID: id("03"), Name: "web", Digest: record.ArgsDigest([]string{"true"})},
	}
}

// chained makes records of facts.
func chained(t *testing.T, facts []record.Fact) []eventlog.Record {
	t.Helper()
	chain, err := measure.NewChain(measure.Config{Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range facts {
		e, err := f.Event()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain.Update(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	records, err := chain.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// TestWhatAPodIsIsNamed changes one thing in a good life at a time.
func TestWhatAPodIsIsNamed(t *testing.T) {
	cut := func(from, to int) func([]record.Fact) []record.Fact {
		return func(f []record.Fact) []record.Fact { return append(f[:from], f[to:]...) }
	}
	then := func(more ...record.Fact) func([]record.Fact) []record.Fact {
		return func(f []record.Fact) []record.Fact { return append(f, more...) }
	}
	image := podCreated("03", "web")
	image.Image = "web:2"
	for _, tt := range []struct {
		name        string
		change      func([]record.Fact) []record.Fact
		check, says string
	}{
		{"good", then(), "", ""},
		{"web is left out", cut(7, 11), "pod-complete", "container web was not started"},
		{"init is left out", cut(4, 7), "pod-order", "container web was created before init had succeeded"},
		{"init did not succeed", func(f []record.Fact) []record.Fact { f[6] = podEnded("02", "init", 1); return f }, "pod-order", "before init had succeeded"},
		{"another exec", then(record.Fact{Kind: record.Exec, ID: id("03"), Name: "web", Digest: record.ArgsDigest([]string{"sh"})}), "pod-exec", "in container web"},
		{"web twice", then(podCreated("04", "web")), "pod-containers", "container web was there twice"},
		{"another container", then(podCreated("04", "miner")), "pod-containers", `container "miner" is not of this pod`},
		{"another image", func(f []record.Fact) []record.Fact { f[7] = image; return f }, "pod-containers", `container web is of image "web:2"`},
		{"web ended", then(podEnded("03", "web", 0), record.Fact{Kind: record.Broken, ID: id("03"), Name: "web", Of: record.Ended}), "pod-complete", "it is broken: container web was lost (ended)"},
		{"web ended and the guest does not say so", then(podEnded("03", "web", 0)), "pod-complete", "container web was not started, or is gone"},
		{"the guest does not say that it is complete", cut(9, 10), "pod-complete", "the guest does not say so"},
		{"the record is full", then(record.Fact{Kind: record.More}), "pod-complete", "more has happened"},
		{"no policy", cut(0, 1), "pod-policy", "no policy came into force"},
		{"a policy after the sandbox", func(f []record.Fact) []record.Fact { f[0], f[1] = f[1], f[0]; return f }, "pod-policy", "sandbox came before any policy"},
		{"another policy then", then(record.Fact{Kind: record.Policy, Binding: "policy", Alg: "sha256", Digest: strings.Repeat("11", 32)}), "pod-policy", "the policy in force is 1111"},
		{"a start of what was not created", then(podFact(record.Started, "09", "x")), "pod-record", "which was not created"},
		{"something behind the end", then(record.Fact{Kind: record.More}, podCreated("04", "web")), "pod-record", "behind more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Result
			r.podRecord(chained(t, tt.change(goodPod())), claim{bound: podBound}, podOfTwo)
			for _, c := range r.Checks {
				switch {
				case c.Name == tt.check && (c.Verdict != Fail || !strings.Contains(c.Detail, tt.says)):
					t.Errorf("%s: %s %q, want %q", c.Name, c.Verdict, c.Detail, tt.says)
				case c.Name != tt.check && c.Verdict != Pass && c.Name != "pod-complete":
					t.Errorf("%s: %s %s", c.Name, c.Verdict, c.Detail)
				case tt.check == "" && c.Verdict != Pass:
					t.Errorf("%s: %s %s", c.Name, c.Verdict, c.Detail)
				}
			}
		})
	}
}

// TestTheManifestsOrder: containers that wait for nothing are made in its order too, the first time.
func TestTheManifestsOrder(t *testing.T) {
	pod := Pod{Ordered: true, Containers: []PodContainer{{Name: "a"}, {Name: "b"}}}
	policy := goodPod()[0]
	for name, tt := range map[string]struct {
		facts []record.Fact
		says  string
	}{
		"in order":    {[]record.Fact{policy, podCreated("01", "a"), podCreated("02", "b")}, ""},
		"another":     {[]record.Fact{policy, podCreated("01", "b"), podCreated("02", "a")}, "container a was created after b"},
		"a restarted": {[]record.Fact{policy, podCreated("01", "a"), podCreated("02", "b"), podEnded("01", "a", 1), podCreated("03", "a")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r Result
			r.podRecord(chained(t, tt.facts), claim{bound: podBound}, pod)
			for _, c := range r.Checks {
				if c.Name == "pod-order" && !strings.Contains(c.Detail, tt.says) || c.Name == "pod-order" && tt.says == "" && c.Verdict != Pass {
					t.Errorf("%s %s, want %q", c.Verdict, c.Detail, tt.says)
				}
			}
		})
	}
}
