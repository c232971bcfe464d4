// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// anchor is a root certificate by its digest, and the subject that a leaf below it must have.
type anchor struct {
	root    [sha256.Size]byte // of the root's DER
	subject map[string]string
}

// anchor reads root and subject, or the did:x509 that says the same.
func (i *Issuer) anchor() (anchor, error) {
	if i.DID != "" {
		return readDID(i.DID)
	}
	a := anchor{subject: i.Subject}
	digits, ok := strings.CutPrefix(i.Root, "sha256:")
	if n, err := hex.Decode(a.root[:], []byte(digits)); !ok || err != nil || n != len(a.root) || len(digits) != 2*n || digits != strings.ToLower(digits) {
		return a, errors.New("root is not sha256: and 64 hexadecimal digits, the digest of the root certificate")
	}
	return a, a.check()
}

// readDID reads "did:x509:0:sha256:FINGERPRINT::subject:KEY:VALUE:...", FINGERPRINT in base64url without padding. Other hashes
// and other policies than subject are refused.
func readDID(did string) (anchor, error) {
	a := anchor{subject: map[string]string{}}
	prefix, policy, ok := strings.Cut(did, "::")
	fingerprint, isDID := strings.CutPrefix(prefix, "did:x509:0:sha256:")
	sum, err := base64.RawURLEncoding.Strict().DecodeString(fingerprint)
	words := strings.Split(policy, ":")
	if !ok || !isDID || err != nil || len(sum) != len(a.root) || len(words) < 3 || len(words)%2 == 0 || words[0] != "subject" {
		return a, errors.New("did is not understood: want did:x509:0:sha256:FINGERPRINT::subject:KEY:VALUE")
	}
	copy(a.root[:], sum)
	for k := 1; k < len(words); k += 2 {
		value, err := url.PathUnescape(words[k+1])
		if _, twice := a.subject[words[k]]; err != nil || twice {
			return a, errors.New("did is not understood: its subject names something twice, or is not percent-encoded")
		}
		a.subject[words[k]] = value
	}
	return a, a.check()
}

func (a anchor) check() error {
	size := 0
	for key, value := range a.subject {
		if _, ok := values(pkix.Name{}, key); !ok || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("subject: %.20q is not one of CN, O, OU, C, L, ST with a value", key)
		}
		size += len(key) + len(value) + 1
	}
	if size == 0 || size > maxSubject {
		return fmt.Errorf("subject is not of 1 to %d bytes", maxSubject)
	}
	return nil
}

// id is the anchor in one word.
func (a anchor) id() string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(a.subject)) {
		words = append(words, key+"="+url.QueryEscape(a.subject[key]))
	}
	return "x509:sha256:" + hex.EncodeToString(a.root[:]) + ":" + strings.Join(words, ",")
}

// values are those of a name's attribute; false for an attribute that is not known here.
func values(n pkix.Name, key string) ([]string, bool) {
	switch key {
	case "CN":
		return attributes(n, "2.5.4.3"), true
	case "C":
		return n.Country, true
	case "L":
		return n.Locality, true
	case "O":
		return n.Organization, true
	case "OU":
		return n.OrganizationalUnit, true
	case "ST":
		return n.Province, true
	}
	return nil, false
}

// attributes are all values of one type: a name may have a common name twice, of which pkix.Name keeps the last.
func attributes(n pkix.Name, oid string) []string {
	var out []string
	for _, a := range n.Names {
		if v, ok := a.Value.(string); ok && a.Type.String() == oid {
			out = append(out, v)
		}
	}
	return out
}

// leafKey verifies a chain, leaf first, that ends with the root itself, and returns the leaf's key. Dates are not looked at.
func (a anchor) leafKey(chain [][]byte) (crypto.PublicKey, error) {
	if len(chain) < 2 {
		return nil, fmt.Errorf("%w: it has no x5chain from its leaf to the root %x", ErrIssuer, a.root)
	}
	if sha256.Sum256(chain[len(chain)-1]) != a.root {
		return nil, fmt.Errorf("%w: its x5chain does not end with the root %x", ErrIssuer, a.root)
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil || len(c.UnhandledCriticalExtensions) > 0 || constrains(c) {
			return nil, fmt.Errorf("%w: certificate %d of x5chain cannot be read, or has constraints that are not understood", ErrIssuer, i)
		}
		certs[i] = c
	}
	for i, c := range certs[:len(certs)-1] {
		above := certs[i+1]
		if err := c.CheckSignatureFrom(above); err != nil || !above.IsCA {
			return nil, fmt.Errorf("%w: certificate %d of x5chain is not signed by the next: %.100v", ErrIssuer, i, err)
		}
		if limited := above.MaxPathLen > 0 || above.MaxPathLenZero; limited && i > above.MaxPathLen {
			return nil, fmt.Errorf("%w: x5chain is longer than its certificate %d allows", ErrIssuer, i+1)
		}
	}
	return a.keyOf(certs[0])
}

// constrains says whether a certificate limits the names of those below it, critically or not. What a subject may be under such
// limits is not worked out here.
func constrains(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(nameConstraints) })
}

var nameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// elsewhere are purposes that have nothing to do with documents: certificates of servers have names too.
var elsewhere = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageOCSPSigning}

// isForDocuments says whether a certificate has a purpose that is not elsewhere, or is for any.
func isForDocuments(c *x509.Certificate) bool {
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return false
	}
	free := len(c.ExtKeyUsage) == 0 || len(c.UnknownExtKeyUsage) > 0
	return free || slices.ContainsFunc(c.ExtKeyUsage, func(u x509.ExtKeyUsage) bool { return !slices.Contains(elsewhere, u) })
}

// keyOf is the key of a leaf that may sign, and has the subject.
func (a anchor) keyOf(leaf *x509.Certificate) (crypto.PublicKey, error) {
	if leaf.IsCA || !isForDocuments(leaf) {
		return nil, fmt.Errorf("%w: the leaf of x5chain may not sign documents", ErrIssuer)
	}
	for key, want := range a.subject {
		if got, _ := values(leaf.Subject, key); len(got) != 1 || got[0] != want {
			return nil, fmt.Errorf("%w: the leaf's subject has %s %.60q, want %q", ErrIssuer, key, got, want)
		}
	}
	return leaf.PublicKey, nil
}

// Validity is when all certificates of the envelope's x5chain were valid; false without a chain, or if it cannot be read. It is
// for who has a clock: no guest has one.
func (s *Signed) Validity() (from, to time.Time, ok bool) {
	for i, der := range s.chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return from, to, false
		}
		if i == 0 || c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	return from, to, len(s.chain) > 0
}
