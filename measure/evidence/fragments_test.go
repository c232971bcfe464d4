// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"portcullis/engine/fragment"
	"portcullis/measure/record"
)

// updates are what the tests below update a policy with.
type updates struct {
	policy   []byte
	issuer   fragment.Issuer // by key
	key      ed25519.PrivateKey
	chained  fragment.Issuer // by root and subject
	leaf     *ecdsa.PrivateKey
	chain    [][]byte
	notAfter time.Time
}

func newUpdates(t *testing.T) updates {
	t.Helper()
	u := updates{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32)), notAfter: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.MarshalPKIXPublicKey(u.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	may := []fragment.May{{Path: "containers.app.exec"}}
	u.issuer = fragment.Issuer{Feed: "app", Key: base64.StdEncoding.EncodeToString(der), MinimumSVN: 2, May: may}
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if u.leaf, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	certificate := func(name string, key *ecdsa.PrivateKey, isCA bool) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, Issuer: pkix.Name{CommonName: "root"}, IsCA: isCA,
			BasicConstraintsValid: true, NotBefore: u.notAfter.AddDate(-1, 0, 0), NotAfter: u.notAfter}
		parent := *template
		parent.Subject = pkix.Name{CommonName: "root"}
		der, err := x509.CreateCertificate(rand.Reader, template, &parent, key.Public(), root)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	u.chain = [][]byte{certificate("release", u.leaf, false), certificate("root", root, true)}
	sum := sha256.Sum256(u.chain[1])
	u.chained = fragment.Issuer{Feed: "chained", Root: "sha256:" + hex.EncodeToString(sum[:]), Subject: map[string]string{"CN": "release"}, May: may}
	data, err := json.Marshal(map[string]any{"issuers": []fragment.Issuer{u.issuer, u.chained}, "common": map[string]any{"capabilities": map[string]any{}},
		"containers": map[string]any{"app": map[string]any{}, "db": map[string]any{}}})
	if err != nil {
		t.Fatal(err)
	}
	u.policy = []byte("package agent_policy\n\nrules := \"sha256:" + strings.Repeat("0", 64) + "\"\n\npolicy_data := " + string(data) + "\n")
	return u
}

// update is a fragment and what a guest's log says of it.
type update struct {
	envelope []byte
	fact     record.Fact
}

func (u updates) fragment(t *testing.T, issuer fragment.Issuer, container string, svn uint64) update {
	t.Helper()
	d := fragment.Document{Version: 1, Feed: issuer.Feed, SVN: svn, Containers: map[string]*fragment.Part{container: {Exec: &[][]string{{"ls"}}}}}
	var envelope []byte
	var err error
	if issuer.Root == "" {
		envelope, err = fragment.Sign(d, u.key, nil)
	} else {
		envelope, err = fragment.Sign(d, u.leaf, u.chain)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := fragment.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return update{envelope, record.Fact{Kind: record.Fragment, Alg: "sha256", Digest: s.Digest(), Feed: issuer.Feed, SVN: svn, Issuer: issuer.ID()}}
}

// TestFragmentsAreJudged: what a log says of fragments, against what the verifier has.
func TestFragmentsAreJudged(t *testing.T) {
	u := newUpdates(t)
	two, three := u.fragment(t, u.issuer, "app", 2), u.fragment(t, u.issuer, "app", 3)
	chained, below, beyond := u.fragment(t, u.chained, "app", 1), u.fragment(t, u.issuer, "app", 1), u.fragment(t, u.issuer, "db", 4)
	earlier := u.fragment(t, u.issuer, "db", 1)
	stranger := u.issuer
	stranger.Feed = "other"
	foreign := u.fragment(t, stranger, "app", 3)
	lying := three
	lying.fact.SVN = 9
	have := func(all ...update) Fragments {
		f := Fragments{Policy: u.policy}
		for _, one := range all {
			f.Envelopes = append(f.Envelopes, one.envelope)
		}
		return f
	}
	digests := func(f Fragments, all ...update) Fragments {
		for _, one := range all {
			f.Digests = append(f.Digests, one.fact.Digest)
		}
		return f
	}
	valid, expired := u.notAfter.AddDate(0, 0, -1), u.notAfter.AddDate(0, 0, 1)
	for _, tt := range []struct {
		name    string
		log     []update // behind the policy; without an envelope or fact it is another policy
		f       Fragments
		at      time.Time
		verdict Verdict
		says    string // in the reason or the detail
	}{
		{"no fragment", nil, have(two), valid, "", ""},
		{"one that is given", []update{two}, have(two), valid, Pass, "1, each vouched for"},
		{"two in their order", []update{two, three}, have(three, two), valid, Pass, "2, each"},
		{"one by its digest", []update{two}, digests(Fragments{Policy: u.policy}, two), valid, Pass, ""},
		{"one that nobody vouches for", []update{two}, have(), valid, Unknown, FragmentUnknown},
		{"one of two that nobody vouches for", []update{two, three}, have(three), valid, Unknown, FragmentUnknown},
		{"an svn that goes down", []update{three, two}, have(two, three), valid, Fail, "svn 3 came before it"},
		{"one twice", []update{two, two}, have(two), valid, Fail, "svn 2 came before it"},
		{"below minimum_svn", []update{below}, digests(have(below), below), valid, Fail, "minimum_svn"},
		{"of no issuer", []update{foreign}, digests(have(foreign), foreign), valid, Fail, "no such issuer"},
		{"beyond the ceiling", []update{beyond}, have(beyond), valid, Fail, "may not set"},
		{"the log lies about it", []update{lying}, have(three), valid, Fail, "another issuer, feed or svn"},
		{"a chain while it is valid", []update{chained}, have(chained), valid, Pass, ""},
		{"a chain that has expired", []update{chained}, have(chained), expired, Unknown, FragmentExpired},
		{"an expired one that was seen in time", []update{chained}, digests(have(chained), chained), expired, Pass, ""},
		{"one of an earlier policy", []update{earlier, {}, two}, have(two, earlier), valid, Pass, ""},
		{"one of an earlier policy that nobody vouches for", []update{earlier, {}, two}, have(two), valid, Unknown, FragmentUnknown},
		{"an envelope that cannot be read", []update{two}, Fragments{Policy: u.policy, Envelopes: [][]byte{{1}}}, valid, Fail, "COSE_Sign1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events := []chainEvent{{}}
			for i := range tt.log {
				if tt.log[i].envelope == nil {
					events = append(events, chainEvent{})
				} else {
					events = append(events, chainEvent{&tt.log[i].fact})
				}
			}
			var r Result
			r.fragments("fragments", events, tt.f, Options{Now: tt.at})
			if tt.verdict == "" {
				if len(r.Checks) != 0 {
					t.Errorf("checks %+v", r.Checks)
				}
				return
			}
			if len(r.Checks) != 1 || r.Checks[0].Verdict != tt.verdict || !strings.Contains(r.Checks[0].Reason+" "+r.Checks[0].Detail, tt.says) {
				t.Errorf("checks %+v, want %s with %q", r.Checks, tt.verdict, tt.says)
			}
		})
	}
}

// TestPoliciesAfterFragments: what the containers may be follows the fragment that is in force.
func TestPoliciesAfterFragments(t *testing.T) {
	u := newUpdates(t)
	two, three := u.fragment(t, u.issuer, "app", 2), u.fragment(t, u.chained, "app", 3)
	f := Fragments{Policy: u.policy, Envelopes: [][]byte{two.envelope, three.envelope}}
	texts, err := f.policies([]chainEvent{{}, {&two.fact}, {&three.fact}})
	if err != nil || len(texts) != 2 {
		t.Fatalf("%d policies, %v", len(texts), err)
	}
	for digest, text := range texts {
		if !bytes.Contains(text, []byte(`"exec":[["ls"]]`)) || bytes.Equal(text, u.policy) {
			t.Errorf("after %s: %s", digest, text)
		}
	}
}

// TestAFragmentByItsDigestAloneLeavesThePodUnknown: what it made of the pod is not known, also where a later one of another feed
// is at hand.
func TestAFragmentByItsDigestAloneLeavesThePodUnknown(t *testing.T) {
	u := newUpdates(t)
	digestOnly, given, after := u.fragment(t, u.issuer, "app", 2), u.fragment(t, u.chained, "app", 1), u.fragment(t, u.issuer, "app", 3)
	f := Fragments{Policy: u.policy, Envelopes: [][]byte{given.envelope, after.envelope}, Digests: []string{digestOnly.fact.Digest}}
	texts, err := f.policies([]chainEvent{{}, {&digestOnly.fact}, {&given.fact}, {&after.fact}})
	if err != nil || texts[given.fact.Digest] != nil || texts[after.fact.Digest] == nil {
		t.Errorf("texts after the second and third: %s, %s, %v", texts[given.fact.Digest], texts[after.fact.Digest], err)
	}
	facts := goodPod()
	facts = append(facts[:7:7], append([]record.Fact{digestOnly.fact}, facts[7:]...)...)
	var r Result
	r.podRecord(chained(t, facts), claim{bound: podBound, fragments: f, options: Options{Now: u.notAfter.AddDate(0, 0, -1)}}, podOfTwo)
	for _, c := range r.Checks {
		if (c.Name == "pod-containers" || c.Name == "pod-exec") && (c.Verdict != Unknown || !strings.Contains(c.Detail, "give it with --fragment")) {
			t.Errorf("%s: %s %s", c.Name, c.Verdict, c.Detail)
		}
	}
}
