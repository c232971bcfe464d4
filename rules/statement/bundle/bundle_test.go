// SPDX-License-Identifier: Apache-2.0

package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	sigstore "github.com/sigstore/sigstore/pkg/signature"

	"portcullis/images/signature"
	"portcullis/rules/statement"
	"portcullis/rules/statement/bundle"
)

const policy = "package agent_policy\n"

func text(t *testing.T) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(policy))
	about := []statement.Descriptor{{Name: "policy of Pod shop", Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}}}
	out, err := statement.New("v1", statement.Parameters{Platform: "guest-pull", Form: "full"}, about, about).Text()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"P-256": p256, "P-384": p384, "RSA": rsa2048, "Ed25519": ed}
}

func verifier(t *testing.T, key crypto.Signer) sigstore.Verifier {
	t.Helper()
	v, err := sigstore.LoadDefaultVerifier(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAStatementIsSignedByItsKeyAlone(t *testing.T) {
	all := signers(t)
	for name, key := range all {
		t.Run(name, func(t *testing.T) {
			signed, err := bundle.Sign(t.Context(), text(t), key)
			if err != nil {
				t.Fatal(err)
			}
			s, err := bundle.Verify(signed, verifier(t, key))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Text(); err != nil || !bytes.Equal(got, text(t)) {
				t.Errorf("the statement came back as %s", got)
			}
			for other, stranger := range all {
				if _, err := bundle.Verify(signed, verifier(t, stranger)); other != name && !errors.Is(err, bundle.ErrSignature) {
					t.Errorf("under the key %s: %v", other, err)
				}
			}
		})
	}
}

// cosign's own bundle of the same statement, under its own key with a password; TestVectors makes them.
func TestABundleOfCosignIsTakenAndItsKeyToo(t *testing.T) {
	read := func(name string) []byte {
		content, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	public, err := signature.ParseKey(read("cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := bundle.Verify(read("cosign.sigstore.json"), public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(policy))
	if got := s.About("sha256", sum[:]); got != "policy of Pod shop" {
		t.Errorf("it speaks of %q", got)
	}
	key, err := bundle.ParseKey(read("cosign.key"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := bundle.Sign(t.Context(), text(t), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Verify(signed, public); err != nil {
		t.Error(err)
	}
	for _, password := range [][]byte{nil, []byte("another")} {
		if _, err := bundle.ParseKey(read("cosign.key"), password); err == nil {
			t.Errorf("the key is taken with the password %q", password)
		}
	}
}

// Whatever is changed of what counts, the bundle is refused.
func TestAChangedBundleIsRefused(t *testing.T) {
	key := signers(t)["Ed25519"]
	signed, err := bundle.Sign(t.Context(), text(t), key)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier(t, key)
	for at := range signed {
		changed := bytes.Clone(signed)
		changed[at] ^= 1
		s, err := bundle.Verify(changed, v)
		if err != nil {
			continue
		}
		// The hint of the key and white space say nothing.
		if got, err := s.Text(); err != nil || !bytes.Equal(got, text(t)) {
			t.Fatalf("with byte %d changed another statement is taken: %s", at, changed)
		}
	}
	envelope := func(change func(map[string]any)) []byte {
		var b map[string]any
		if err := json.Unmarshal(signed, &b); err != nil {
			t.Fatal(err)
		}
		change(b["dsseEnvelope"].(map[string]any))
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, changed := range map[string][]byte{
		"no signature":     envelope(func(e map[string]any) { delete(e, "signatures") }),
		"another payload":  envelope(func(e map[string]any) { e["payload"] = "e30=" }),
		"another type":     envelope(func(e map[string]any) { e["payloadType"] = "text/plain" }),
		"nothing":          nil,
		"no bundle":        []byte("{}"),
		"more than a file": make([]byte, bundle.MaxBytes+1),
	} {
		if _, err := bundle.Verify(changed, v); !errors.Is(err, bundle.ErrForm) && !errors.Is(err, bundle.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyAStatementAboutPoliciesIsSigned(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":           "policy",
		"another predicate": `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://spdx.dev/Document", "subject": [{"digest": {"sha256": "00"}}]}`,
		"no subject": `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
			"predicate": {"buildDefinition": {"buildType": "urn:portcullis:genpolicy:v1"}}}`,
	} {
		if _, err := bundle.Sign(t.Context(), []byte(text), signers(t)["Ed25519"]); !errors.Is(err, statement.ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
