// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"portcullis/engine/binding"
	"portcullis/engine/fragment"
	"portcullis/measure/record"
)

// updatable are rules that read what fragments set.
const updatable = `package agent_policy

import rego.v1

SetPolicyRequest := false

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/", input.name]), "value": input.image}]} if {
	input.image == policy_data.containers[input.name].image.source
	not data.pstate[input.name]
}

ExecProcessRequest if input.args in policy_data.containers[input.name].exec

policy_data := `

// images of the container app, by version.
func image(n int) string { return fmt.Sprintf("registry.example.org/app@sha256:%064x", n) }

// issuerKey signs fragments.
var issuerKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

func keyOf(t testing.TB, key ed25519.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// withIssuers is a policy whose container app may be given other images, for one feed or more.
func withIssuers(t testing.TB, feeds ...string) string {
	t.Helper()
	var issuers []fragment.Issuer
	for _, feed := range feeds {
		issuers = append(issuers, fragment.Issuer{Feed: feed, Key: keyOf(t, issuerKey), MinimumSVN: 2, May: []fragment.May{
			{Path: "containers.app.image", Registries: []string{"registry.example.org/"}}, {Path: "containers.app.exec"}}})
	}
	container := map[string]any{"exec": [][]string{}, "image": map[string]any{"source": image(1), "from": "guest-pull"}}
	data, err := json.Marshal(map[string]any{"common": map[string]any{"capabilities": map[string]any{}}, "issuers": issuers,
		"containers": map[string]any{"app": container, "db": container}})
	if err != nil {
		t.Fatal(err)
	}
	return updatable + string(data) + "\n"
}

// signed is a fragment as text.
func signed(t testing.TB, key ed25519.PrivateKey, d fragment.Document) string {
	t.Helper()
	envelope, err := fragment.Sign(d, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(fragment.Text(envelope))
}

// newImage is a document that gives app an image.
func newImage(feed string, svn uint64, n int) fragment.Document {
	name := image(n)
	_, digest, _ := strings.Cut(name, "@")
	return fragment.Document{Version: 1, Feed: feed, SVN: svn, Containers: map[string]*fragment.Part{
		"app": {Image: &fragment.Image{Name: name, Also: []string{}, Digest: digest}}}}
}

func toImage(t testing.TB, svn uint64, n int) string {
	return signed(t, issuerKey, newImage("app", svn, n))
}

// eventOf is what a register takes of a fragment of issuerKey.
func eventOf(t testing.TB, text string) []byte {
	t.Helper()
	envelope, err := fragment.FromText([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := fragment.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	issuer := fragment.Issuer{Key: keyOf(t, issuerKey)}
	e, err := record.Fact{Kind: record.Fragment, Alg: "sha256", Digest: s.Digest(), Feed: s.Document.Feed, SVN: s.Document.SVN, Issuer: issuer.ID()}.FragmentEvent()
	if err != nil {
		t.Fatal(err)
	}
	return e.Digest
}

func create(n int) string { return fmt.Sprintf(`{"name": "app", "image": %q}`, image(n)) }

func (p *process) forbids(entryPoint, input string) {
	p.t.Helper()
	if ok, err := p.judge(entryPoint, input); ok || err != nil {
		p.t.Errorf("%s: allowed %t, %v; want it denied", entryPoint, ok, err)
	}
}

// TestAFragmentIsMeasuredAndTakesEffect: the policy goes on with what it remembers, and the register shows policy and fragment.
func TestAFragmentIsMeasuredAndTakesEffect(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	p.forbids("CreateContainerRequest", create(2))
	update := toImage(t, 2, 2)
	p.set(update)
	p.set(update)                // again: nothing to do
	p.set(withIssuers(t, "app")) // nor for the policy itself
	p.forbids("CreateContainerRequest", create(1))
	p.allows("CreateContainerRequest", create(2))
	if want := [][]byte{digest(withIssuers(t, "app")), eventOf(t, update)}; !slices.EqualFunc(r.digests, want, bytes.Equal) {
		t.Errorf("register took %x, want %x", r.digests, want)
	}
	s := p.chain.Status(t.Context())
	if len(s.Fragments) != 1 || s.Fragments[0].Feed != "app" || s.Fragments[0].SVN != 2 || s.Policy != fmt.Sprintf("%x", digest(withIssuers(t, "app"))) {
		t.Errorf("status %+v", s)
	}
}

// TestAFragmentBesideARunningContainerOfItsName: it goes on; there is no second beside it, of neither image.
func TestAFragmentBesideARunningContainerOfItsName(t *testing.T) {
	p := newBench(t).start(binding.Config{Register: &register{}}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	p.allows("CreateContainerRequest", create(1))
	d := newImage("app", 2, 2)
	d.Containers["app"].Exec = &[][]string{{"ls"}}
	p.forbids("ExecProcessRequest", `{"name": "app", "args": ["ls"]}`)
	p.set(signed(t, issuerKey, d))
	p.forbids("CreateContainerRequest", create(1))
	p.forbids("CreateContainerRequest", create(2))
	p.allows("ExecProcessRequest", `{"name": "app", "args": ["ls"]}`)
	if want := fmt.Sprintf("[{\"pstate\":{\"app\":%q}}]", image(1)); p.state() != want {
		t.Errorf("state %s, want %s", p.state(), want)
	}
}

// TestFragmentsThatAreRefused change nothing, and nothing is measured.
func TestFragmentsThatAreRefused(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	beyond := newImage("app", 9, 2)
	beyond.Containers["db"] = beyond.Containers["app"]
	elsewhere := newImage("app", 9, 2)
	elsewhere.Containers["app"].Image.Name = "evil.example.org/" + strings.TrimPrefix(image(2), "registry.example.org/")
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
	p.refuses(toImage(t, 9, 2), binding.CodeNotSet)
	p.set(withIssuers(t, "app", "second"))
	p.set(toImage(t, 5, 2))
	for name, tt := range map[string]struct {
		text string
		want binding.Code
	}{
		"no envelope":             {"portcullis-fragment:AAAA", binding.CodeFragmentInvalid},
		"another key":             {signed(t, other, newImage("app", 9, 3)), binding.CodeFragmentIssuer},
		"another feed":            {signed(t, issuerKey, newImage("third", 9, 3)), binding.CodeFragmentIssuer},
		"below minimum_svn":       {signed(t, issuerKey, newImage("second", 1, 3)), binding.CodeFragmentRollback},
		"an older one":            {toImage(t, 4, 3), binding.CodeFragmentRollback},
		"another of the same svn": {toImage(t, 5, 3), binding.CodeFragmentRollback},
		"another container":       {signed(t, issuerKey, beyond), binding.CodeFragmentCeiling},
		"another registry":        {signed(t, issuerKey, elsewhere), binding.CodeFragmentCeiling},
	} {
		t.Run(name, func(t *testing.T) {
			p.refuses(tt.text, tt.want)
			if r.extends != 2 {
				t.Errorf("%d extends, want 2", r.extends)
			}
		})
	}
	p.forbids("CreateContainerRequest", create(3))
	p.allows("CreateContainerRequest", create(2))
}

// TestPoliciesWithoutIssuersTakeNoFragments, nor does one whose issuers are not understood.
func TestPoliciesWithoutIssuersTakeNoFragments(t *testing.T) {
	for name, text := range map[string]string{
		"no issuers":             withIssuers(t),
		"no policy_data":         good,
		"issuers of another age": strings.Replace(withIssuers(t, "app"), `"minimum_svn"`, `"minimum_age"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := &register{}
			p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
			p.set(text)
			p.refuses(toImage(t, 2, 2), binding.CodeFragmentIssuer)
			if r.extends != 1 {
				t.Errorf("%d extends, want 1", r.extends)
			}
		})
	}
}

// TestFeedsHaveSVNsOfTheirOwn, and the later fragment of one container wins.
func TestFeedsHaveSVNsOfTheirOwn(t *testing.T) {
	p := newBench(t).start(binding.Config{Register: &register{}}, closedDefault, false)
	p.set(withIssuers(t, "app", "second"))
	p.set(toImage(t, 7, 2))
	p.set(signed(t, issuerKey, newImage("second", 2, 3)))
	p.forbids("CreateContainerRequest", create(2))
	p.refuses(toImage(t, 6, 4), binding.CodeFragmentRollback)
	p.refuses(toImage(t, 7, 2), "") // in force: nothing to do
	p.set(toImage(t, 8, 4))
	p.allows("CreateContainerRequest", create(4))
	if got := p.chain.Status(t.Context()).Fragments; len(got) != 2 || got[0].Feed != "second" || got[1].SVN != 8 {
		t.Errorf("fragments %+v", got)
	}
}

// TestALaterFragmentOfAFeedTakesThePlaceOfTheOneBefore: what it does not set is again as it was measured.
func TestALaterFragmentOfAFeedTakesThePlaceOfTheOneBefore(t *testing.T) {
	p := newBench(t).start(binding.Config{Register: &register{}}, closedDefault, false)
	p.set(withIssuers(t, "app"))
	d := newImage("app", 2, 2)
	d.Containers["app"].Exec = &[][]string{{"ls"}}
	p.set(signed(t, issuerKey, d))
	p.allows("ExecProcessRequest", `{"name": "app", "args": ["ls"]}`)
	p.set(toImage(t, 3, 3))
	p.forbids("ExecProcessRequest", `{"name": "app", "args": ["ls"]}`)
	p.allows("CreateContainerRequest", create(3))
}

// TestAReplayAfterANewPolicyIsRefused: SVNs do not go down in a boot, whatever policy comes.
func TestAReplayAfterANewPolicyIsRefused(t *testing.T) {
	b, r := newBench(t), &register{}
	p := b.start(binding.Config{Register: r, Update: true}, closedDefault, false)
	free := func(text string) string {
		return strings.Replace(text, "SetPolicyRequest := false", "SetPolicyRequest := true", 1)
	}
	p.set(free(withIssuers(t, "app")))
	old := toImage(t, 2, 2)
	p.set(old)
	p.set(toImage(t, 3, 3))
	p.set(free(withIssuers(t, "app", "second"))) // fragments of the old policy are gone
	p.forbids("CreateContainerRequest", create(3))
	p.refuses(old, binding.CodeFragmentRollback)
	p = b.start(binding.Config{Register: r, Update: true}, closedDefault, true)
	p.refuses(old, binding.CodeFragmentRollback)
	p.set(toImage(t, 4, 3))
	p.allows("CreateContainerRequest", create(3))
}

// TestAFragmentNeedsAWitness: a guest that only a launch field binds could update its policy unseen.
func TestAFragmentNeedsAWitness(t *testing.T) {
	text := withIssuers(t, "app")
	bound := binding.Config{Field: &field{digest: digest(text)}}
	p := newBench(t).start(bound, closedDefault, false)
	p.set(text)
	p.refuses(toImage(t, 2, 2), binding.CodeNoBackend)
	p.allows("CreateContainerRequest", create(1))
	var facts []record.Fact
	bound.Record = func(_ context.Context, f record.Fact) error {
		facts = append(facts, f)
		return nil
	}
	p = newBench(t).start(bound, closedDefault, false)
	p.set(text)
	p.set(toImage(t, 2, 2))
	p.allows("CreateContainerRequest", create(2))
	if len(facts) != 2 || facts[1].Kind != record.Fragment || facts[1].Feed != "app" || facts[1].SVN != 2 || facts[1].Issuer == "" {
		t.Errorf("recorded %+v", facts)
	}
}

// TestFragmentsOfInitdata take effect before the first request, bound by the document's digest alone.
func TestFragmentsOfInitdata(t *testing.T) {
	document := digest("document")
	config := func(fragments ...string) binding.Config {
		i := &binding.Initdata{Alg: "sha256", Digest: document, Policy: []byte(withIssuers(t, "app"))}
		for _, f := range fragments {
			i.Fragments = append(i.Fragments, []byte(f))
		}
		return binding.Config{Field: &field{digest: document}, Initdata: i}
	}
	b := newBench(t)
	p := b.start(config(toImage(t, 2, 2), toImage(t, 3, 3)), closedDefault, false)
	p.allows("CreateContainerRequest", create(3))
	again := b.start(config(toImage(t, 2, 2), toImage(t, 3, 3)), closedDefault, true)
	if again.startup != nil || again.state() != p.state() {
		t.Errorf("after a restart: %v, state %s, want %s", again.startup, again.state(), p.state())
	}
	again.forbids("CreateContainerRequest", create(2))
	newBench(t).start(config(toImage(t, 1, 2)), closedDefault, false).denies(binding.CodeInitdataInvalid)

	// Killed before the second was accepted: the document is its witness still.
	b = newBench(t)
	p = b.start(config(toImage(t, 2, 2)), closedDefault, false)
	envelope, err := fragment.FromText([]byte(toImage(t, 3, 3)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.journal.Propose(envelope); err != nil {
		t.Fatal(err)
	}
	again = b.start(config(toImage(t, 2, 2), toImage(t, 3, 3)), closedDefault, false)
	if again.startup != nil {
		t.Fatalf("killed while a fragment of initdata was taken: %v", again.startup)
	}
	again.allows("CreateContainerRequest", create(3))
}

// TestANarrowerPolicyOnly: where only narrower policies are taken, the policy that decides is compared with fragments and all,
// and its rule for SetPolicy is not asked.
func TestANarrowerPolicyOnly(t *testing.T) {
	r := &register{}
	var current []string
	config := binding.Config{Register: r, Update: true, Narrow: func(now, next []byte) error {
		current = append(current, string(now))
		if !strings.Contains(string(next), "# narrower") {
			return errors.New("it may allow more")
		}
		return nil
	}}
	p := newBench(t).start(config, closedDefault, false)
	p.set(withIssuers(t, "app")) // the first is no update
	p.set(toImage(t, 2, 2))
	p.allows("CreateContainerRequest", create(2))
	narrower := strings.Replace(withIssuers(t, "app"), "SetPolicyRequest", "# narrower\nSetPolicyRequest", 1)
	p.refuses(withIssuers(t, "app", "second"), binding.CodeNotNarrower)
	if r.extends != 2 {
		t.Errorf("%d extends, want 2", r.extends)
	}
	before := p.state()
	p.set(narrower)
	if p.state() != before || r.extends != 3 {
		t.Errorf("state %s, want %s; %d extends, want 3", p.state(), before, r.extends)
	}
	for _, text := range current {
		if !strings.Contains(text, image(2)) {
			t.Error("it was compared with another policy than the one that decides")
		}
	}
}
