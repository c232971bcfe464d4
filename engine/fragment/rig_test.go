// SPDX-License-Identifier: Apache-2.0

package fragment_test

import (
	"crypto"
	"crypto/ecdsa"
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
)

const (
	oldDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	newDigest = "sha256:abababababababababababababababababababababababababababababababab"
	feed      = "shop/app"
	newImage  = "registry.example.org/shop/app@" + newDigest
)

// newKey is a key of P-256.
func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// spki is a public key as policy_data names it.
func spki(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// mayImage lets an issuer set the image and commands of app.
func mayImage() []fragment.May {
	return []fragment.May{{Path: "containers.app.image", Registries: []string{"registry.example.org/shop"}}, {Path: "containers.app.exec"}}
}

// byKey is an issuer of feed by key.
func byKey(t testing.TB, key crypto.PublicKey) fragment.Issuer {
	return fragment.Issuer{Feed: feed, Key: spki(t, key), May: mayImage(), MinimumSVN: 2}
}

// update is a document that sets app's image.
func update(svn uint64) fragment.Document {
	return fragment.Document{Version: 1, Feed: feed, SVN: svn, Containers: map[string]*fragment.Part{
		"app": {Image: &fragment.Image{Name: newImage, Also: []string{}, Digest: newDigest}},
	}}
}

// policy is a compact policy of two containers with issuers.
func policy(t testing.TB, issuers ...fragment.Issuer) []byte {
	t.Helper()
	image := "registry.example.org/shop/app@" + oldDigest
	container := map[string]any{
		"args": []string{"serve"}, "arg_matches": map[string]any{"0": map[string]string{"pattern": "^a$"}}, "capabilities": "$default", "cwd": "/",
		"exec": [][]string{{"probe"}}, "env": map[string]any{"fixed": []string{"A=1"}}, "mounts": map[string]any{},
		"image": map[string]any{"also": []string{}, "digest": oldDigest, "from": "guest-pull", "layers": []string{}, "source": image},
		"OCI": map[string]any{"Annotations": map[string]string{"io.kubernetes.cri.image-name": image},
			"Process": map[string]any{"User": map[string]int{"UID": 65535}}},
	}
	data, err := json.Marshal(map[string]any{"version": 1, "issuers": issuers,
		"common":     map[string]any{"capabilities": map[string]any{"$default": map[string]any{}}},
		"containers": map[string]any{"app": container, "$sandbox": container, "db": container}})
	if err != nil {
		t.Fatal(err)
	}
	return []byte("package agent_policy\n\nrules := \"sha256:" + strings.Repeat("0", 64) + "\"\n\npolicy_data := " + string(data) + "\n")
}

// issuerOf opens an envelope and asks who vouches for it.
func issuerOf(envelope []byte, issuers ...fragment.Issuer) (*fragment.Issuer, error) {
	s, err := fragment.Open(envelope)
	if err != nil {
		return nil, err
	}
	return s.Issuer(issuers)
}

func sign(t testing.TB, d fragment.Document, key crypto.Signer, chain ...[]byte) []byte {
	t.Helper()
	envelope, err := fragment.Sign(d, key, chain)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// authority is a root that has issued certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func (a authority) digest() string {
	sum := sha256.Sum256(a.cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func newAuthority(t testing.TB, change func(*x509.Certificate)) authority {
	a := authority{key: newKey(t)}
	a.cert = a.issue(t, a.key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA = "Root", true
		if change != nil {
			change(c)
		}
	})
	return a
}

// issue makes a certificate that ended long ago: dates are not looked at.
func (a authority) issue(t testing.TB, key *ecdsa.PrivateKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Release", Organization: []string{"Example"}},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(1e9+3600, 0), BasicConstraintsValid: true}
	change(template)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
