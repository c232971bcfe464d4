// SPDX-License-Identifier: Apache-2.0

package fragment_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"portcullis/engine/fragment"
)

func leafCertificate(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }

// TestWhoMaySign: feed, key and minimum_svn.
func TestWhoMaySign(t *testing.T) {
	key, other := newKey(t), newKey(t)
	issuer := byKey(t, key.Public())
	elsewhere := issuer
	elsewhere.Feed = "shop/db"
	for name, tt := range map[string]struct {
		envelope []byte
		issuers  []fragment.Issuer
		want     error
	}{
		"the issuer":                  {sign(t, update(2), key), []fragment.Issuer{issuer}, nil},
		"the second issuer":           {sign(t, update(2), key), []fragment.Issuer{byKey(t, other.Public()), issuer}, nil},
		"nobody":                      {sign(t, update(2), key), nil, fragment.ErrIssuer},
		"another key":                 {sign(t, update(2), other), []fragment.Issuer{issuer}, fragment.ErrSignature},
		"the issuer of another feed":  {sign(t, update(2), key), []fragment.Issuer{elsewhere}, fragment.ErrIssuer},
		"below minimum_svn":           {sign(t, update(1), key), []fragment.Issuer{issuer}, fragment.ErrRollback},
		"another key below the floor": {sign(t, update(1), other), []fragment.Issuer{issuer}, fragment.ErrSignature},
	} {
		if _, err := issuerOf(tt.envelope, tt.issuers...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// TestChains: a chain counts if it ends with the pinned root, and the leaf has the subject. That all of them have expired does
// not count: no clock is believed.
func TestChains(t *testing.T) {
	root, stranger := newAuthority(t, nil), newAuthority(t, nil)
	noPath := newAuthority(t, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	key := newKey(t)
	leaf := root.issue(t, key, leafCertificate)
	middleKey := newKey(t)
	ca := func(c *x509.Certificate) { c.IsCA, c.Subject.CommonName = true, "Middle" }
	middle := authority{middleKey, root.issue(t, middleKey, ca)}
	below := middle.issue(t, key, leafCertificate)
	noCA := authority{middleKey, root.issue(t, middleKey, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })}
	limited := authority{middleKey, noPath.issue(t, middleKey, ca)}
	pinned := func(a authority) fragment.Issuer {
		return fragment.Issuer{Feed: feed, May: mayImage(), Root: a.digest(), Subject: map[string]string{"CN": "Release", "O": "Example"}}
	}
	constrained := authority{middleKey, root.issue(t, middleKey, func(c *x509.Certificate) {
		ca(c)
		c.PermittedDNSDomains = []string{"example.org"}
	})}
	purposes := func(all ...x509.ExtKeyUsage) [][]byte {
		return [][]byte{root.issue(t, key, func(c *x509.Certificate) { c.ExtKeyUsage = all }).Raw, root.cert.Raw}
	}
	twice := root.issue(t, key, func(c *x509.Certificate) { c.Subject.Organization = []string{"Example", "Other"} })
	tests := map[string]struct {
		chain  [][]byte
		issuer fragment.Issuer
		want   error
	}{
		"leaf and root":                 {[][]byte{leaf.Raw, root.cert.Raw}, pinned(root), nil},
		"one between":                   {[][]byte{below.Raw, middle.cert.Raw, root.cert.Raw}, pinned(root), nil},
		"another root":                  {[][]byte{leaf.Raw, stranger.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"another root with the pinned":  {[][]byte{stranger.issue(t, key, leafCertificate).Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"a whole chain of another":      {[][]byte{stranger.issue(t, key, leafCertificate).Raw, stranger.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"the leaf alone":                {[][]byte{leaf.Raw}, pinned(root), fragment.ErrIssuer},
		"no chain":                      {nil, pinned(root), fragment.ErrIssuer},
		"the root twice":                {[][]byte{leaf.Raw, root.cert.Raw, root.cert.Raw}, pinned(root), nil},
		"a leaf that issues":            {[][]byte{noCA.issue(t, key, leafCertificate).Raw, noCA.cert.Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"a CA that signs":               {[][]byte{root.issue(t, key, func(c *x509.Certificate) { c.IsCA = true }).Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"a leaf for other uses":         {[][]byte{root.issue(t, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }).Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"a leaf of a server":            {purposes(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth), pinned(root), fragment.ErrIssuer},
		"a leaf to sign code":           {purposes(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageCodeSigning), pinned(root), nil},
		"limited names":                 {[][]byte{constrained.issue(t, key, leafCertificate).Raw, constrained.cert.Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"longer than the root allows":   {[][]byte{limited.issue(t, key, leafCertificate).Raw, limited.cert.Raw, noPath.cert.Raw}, pinned(noPath), fragment.ErrIssuer},
		"another subject":               {[][]byte{root.issue(t, key, func(c *x509.Certificate) { c.Subject.CommonName = "Release2" }).Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"a subject with two values":     {[][]byte{twice.Raw, root.cert.Raw}, pinned(root), fragment.ErrIssuer},
		"bytes that are no certificate": {[][]byte{[]byte("x"), root.cert.Raw}, pinned(root), fragment.ErrIssuer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := issuerOf(sign(t, update(3), key, tt.chain...), tt.issuer); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, err := issuerOf(sign(t, update(3), newKey(t), tt.chain...), tt.issuer); err == nil {
				t.Error("signed by another key it is taken")
			}
		})
	}
}

// TestDID: did:x509 where it says what root and subject say, and nothing else.
func TestDID(t *testing.T) {
	root, key := newAuthority(t, nil), newKey(t)
	leaf := root.issue(t, key, leafCertificate)
	sum, err := hex.DecodeString(strings.TrimPrefix(root.digest(), "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := base64.RawURLEncoding.EncodeToString(sum)
	envelope := sign(t, update(3), key, leaf.Raw, root.cert.Raw)
	for did, want := range map[string]error{
		"did:x509:0:sha256:" + fingerprint + "::subject:CN:Release":             nil,
		"did:x509:0:sha256:" + fingerprint + "::subject:CN:Rel%65ase:O:Example": nil,
		"did:x509:0:sha256:" + fingerprint + "::subject:CN:Release2":            fragment.ErrIssuer,
		"did:x509:0:sha256:" + fingerprint + "::eku:1.3.6.1.5.5.7.3.3":          fragment.ErrIssuers,
		"did:x509:0:sha256:" + fingerprint + "::subject:CN:Release::eku:1.2.3":  fragment.ErrIssuers,
		"did:x509:0:sha256:" + fingerprint + "::subject:CN:Release:CN:Release":  fragment.ErrIssuers,
		"did:x509:0:sha256:" + fingerprint + "::subject:SN:Release":             fragment.ErrIssuers,
		"did:x509:0:sha256:" + fingerprint + "::subject:CN":                     fragment.ErrIssuers,
		"did:x509:0:sha384:" + fingerprint + "::subject:CN:Release":             fragment.ErrIssuers,
		"did:x509:1:sha256:" + fingerprint + "::subject:CN:Release":             fragment.ErrIssuers,
		"did:x509:0:sha256:" + fingerprint[1:] + "::subject:CN:Release":         fragment.ErrIssuers,
		"did:web:example.org": fragment.ErrIssuers,
	} {
		issuer := fragment.Issuer{Feed: feed, May: mayImage(), DID: did}
		err := fragment.Check([]fragment.Issuer{issuer})
		if err == nil {
			_, err = issuerOf(envelope, issuer)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", did, err, want)
		}
	}
}

// TestIssuersAreHeldToTheirShape: what is not understood of policy_data.issuers is refused, not left out.
func TestIssuersAreHeldToTheirShape(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := byKey(t, newKey(t).Public())
	if got, err := fragment.Issuers(policy(t, good)); err != nil || len(got) != 1 || got[0].ID() != good.ID() {
		t.Fatalf("%v, %v", got, err)
	}
	for name, change := range map[string]func(*fragment.Issuer){
		"no key": func(i *fragment.Issuer) { i.Key = "" },
		"a path twice": func(i *fragment.Issuer) {
			i.May = append(i.May, fragment.May{Path: i.May[0].Path, Registries: []string{"registry.example.org"}})
		},
		"key and root": func(i *fragment.Issuer) {
			i.Root, i.Subject = "sha256:"+strings.Repeat("0", 64), map[string]string{"CN": "x"}
		},
		"root without subject":   func(i *fragment.Issuer) { i.Key, i.Root = "", "sha256:"+strings.Repeat("0", 64) },
		"subject without root":   func(i *fragment.Issuer) { i.Subject = map[string]string{"CN": "x"} },
		"a key of another curve": func(i *fragment.Issuer) { i.Key = spki(t, p224.Public()) },
		"a key that is none":     func(i *fragment.Issuer) { i.Key = "AAAA" },
		"no feed":                func(i *fragment.Issuer) { i.Feed = "" },
		"may nothing":            func(i *fragment.Issuer) { i.May = nil },
		"may rules":              func(i *fragment.Issuer) { i.May[0].Path = "rules" },
		"may issuers":            func(i *fragment.Issuer) { i.May[0].Path = "issuers" },
		"may the sandbox":        func(i *fragment.Issuer) { i.May[0].Path = "containers.$sandbox.image" },
		"may an unknown field":   func(i *fragment.Issuer) { i.May[0].Path = "containers.app.storages" },
		"may all containers":     func(i *fragment.Issuer) { i.May[0].Path = "containers" },
	} {
		bad := byKey(t, newKey(t).Public())
		bad.May = mayImage()
		change(&bad)
		if _, err := fragment.Issuers(policy(t, good, bad)); !errors.Is(err, fragment.ErrIssuers) {
			t.Errorf("%s: %v, want ErrIssuers", name, err)
		}
	}
	if _, err := fragment.Issuers(policy(t, good, good)); !errors.Is(err, fragment.ErrIssuers) {
		t.Errorf("one issuer twice: %v", err)
	}
	if _, err := fragment.Issuers(policy(t, slices.Repeat([]fragment.Issuer{good}, 17)...)); !errors.Is(err, fragment.ErrIssuers) {
		t.Errorf("17 issuers: %v", err)
	}
	unknown := strings.Replace(string(policy(t, good)), `"minimum_svn"`, `"maximum_svn"`, 1)
	if _, err := fragment.Issuers([]byte(unknown)); !errors.Is(err, fragment.ErrIssuers) {
		t.Errorf("an unknown key: %v", err)
	}
}
