// SPDX-License-Identifier: Apache-2.0

// Package adversary_test drives the rules with changed sequences of a pod's genuine
// requests, and fails where they allow what a model of a pod says breaks a guarantee.
package adversary_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portcullis/internal/emulator"
	"portcullis/internal/emulator/emulatortest"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

var (
	duration = flag.Duration("adversary", 0, "run with fresh seeds for so long")
	// sequences are how many a run with the fixed seed tries of each pod.
	sequences = flag.Int("sequences", 15, "how many sequences of each pod and form to try")
)

// knownFindings are guarantees that the rules do not hold as yet. It must shrink.
var knownFindings = map[string]bool{"id taken twice": true}

var manifests = []string{"shop", "nightly"}

// pod is a manifest's pod on a platform.
type pod struct {
	name    string
	policy  *policydata.Policy
	genuine []rulestest.Request
	model   *model
}

func pods(t *testing.T) (out []pod) {
	t.Helper()
	store := "../generate/testdata/images.json"
	for _, platform := range emulator.Platforms() {
		for _, name := range manifests {
			file := "../testdata/pods/" + name + ".yaml"
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			policies, _, err := generatetest.Policies(generatetest.Manifest(t, file), generatetest.Settings(t, platform), generatetest.Images(t, store))
			if err != nil {
				t.Logf("%s for %s: no policy: %v", name, platform, err)
				continue
			}
			life := emulatortest.Pods(t, text, emulatortest.Options(t, platform, generatetest.Store(t, store)))
			p := pod{name: name + "/" + platform, policy: policies[0], genuine: life[0].Requests}
			// Of pods whose emulated lives are denied as yet, the requests follow the policy.
			if emulatortest.Denied(t, p.judge(t, rules.Text(), false), p.genuine) != nil {
				p.genuine = rulestest.Emulator{Policy: p.policy, Pod: rulestest.DefaultPod(p.policy)}.All()
				t.Logf("%s: requests made from the policy", p.name)
			}
			p.model = newModel(p.policy, p.genuine)
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		t.Fatal("no pod")
	}
	return out
}

// judge loads the pod's policy with a text of the rules.
func (p pod) judge(t *testing.T, text string, full bool) *rulestest.Judge {
	t.Helper()
	data, err := p.policy.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if full {
		whole, err := p.policy.Full(text)
		if err != nil {
			t.Fatal(err)
		}
		text, data = string(whole), nil
	}
	j, err := rulestest.New(text, data)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// play asks for a sequence from the start, and returns the guarantees that the rules let be broken.
func (p pod) play(j *rulestest.Judge, steps []step) (string, error) {
	ctx := context.Background()
	if err := j.SetState(ctx, object{}); err != nil {
		return "", err
	}
	m := p.model.fresh()
	for n, r := range apply(p.genuine, steps) {
		d, err := j.Ask(ctx, r)
		if err != nil {
			return "", err
		}
		if !d.Allowed {
			continue
		}
		if broken := m.allowed(r); broken != "" && !knownFindings[broken] {
			return fmt.Sprintf("request %d, %s: %s", n, r.Kind, broken), nil
		}
	}
	return "", nil
}

// steps draws one to five changes.
func steps() *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			What: rapid.IntRange(0, len(changes)-1).Draw(t, "what"), At: rapid.IntRange(0, 63).Draw(t, "at"),
			From: rapid.IntRange(0, 63).Draw(t, "from"), Item: rapid.IntRange(0, 31).Draw(t, "item"),
		}
	})
	return rapid.SliceOfN(one, 1, 5)
}

// The rules allow nothing that breaks a guarantee of the model.
func TestNoSequenceBreaksAGuarantee(t *testing.T) {
	all := pods(t)
	seed, end := uint64(20261128), time.Now().Add(*duration)
	set(t, "rapid.checks", fmt.Sprint(*sequences))
	set(t, "rapid.nofailfile", "true")
	set(t, "rapid.shrinktime", "5s")
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		if *duration > 0 {
			seed = rand.Uint64()
			t.Logf("seed %d", seed)
		}
		set(t, "rapid.seed", fmt.Sprint(seed))
		for _, p := range all {
			for _, form := range []string{"compact", "full"} {
				j := p.judge(t, rules.Text(), form == "full")
				t.Run(p.name+"/"+form, func(t *testing.T) { rapid.Check(t, p.property(j)) })
			}
		}
		if t.Failed() {
			return
		}
	}
}

func (p pod) property(j *rulestest.Judge) func(*rapid.T) {
	return func(t *rapid.T) {
		drawn := steps().Draw(t, "steps")
		found, err := p.play(j, drawn)
		if err != nil {
			t.Fatal(err)
		}
		if found != "" {
			t.Fatalf("%s after %s", found, describe(drawn))
		}
	}
}

func describe(drawn []step) string {
	var out []string
	for _, s := range drawn {
		out = append(out, fmt.Sprintf("%s %v", changes[s.What].name, s))
	}
	return strings.Join(out, ", ")
}

func set(t *testing.T, name, value string) {
	t.Helper()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

// Genuine sequences break nothing in the model, and are allowed: else the adversary would try what never gets far.
func TestGenuineSequencesHoldEveryGuarantee(t *testing.T) {
	for _, p := range pods(t) {
		if denied := emulatortest.Denied(t, p.judge(t, rules.Text(), false), p.genuine); denied != nil {
			t.Errorf("%s: %s is denied", p.name, denied.Kind)
		}
		m := p.model.fresh()
		for _, r := range p.genuine {
			if broken := m.allowed(r); broken != "" {
				t.Errorf("%s: genuine %s: %s", p.name, r.Kind, broken)
			}
		}
	}
}
