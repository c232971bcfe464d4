// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"portcullis/engine/policytext"
	"portcullis/internal/strictjson"
)

// Bounds of what a policy says of issuers.
const (
	MaxIssuers = 16
	maxFeed    = 128 // bytes of a feed's name
	maxSubject = 256 // bytes of a subject, names and values
)

// Issuer is one that may update a policy: an element of policy_data.issuers. Exactly one of Key, Root with Subject, and DID is set.
type Issuer struct {
	DID        string            `json:"did,omitempty"` // did:x509 of version 0 with subject policies alone
	Feed       string            `json:"feed"`          // the line of updates; each has SVNs of its own
	Key        string            `json:"key,omitempty"` // public key: base64 of its SubjectPublicKeyInfo
	May        []May             `json:"may"`           // the ceiling; what is not in it may not be set
	MinimumSVN uint64            `json:"minimum_svn"`   // lower ones are refused, in every boot
	Root       string            `json:"root,omitempty"`
	Subject    map[string]string `json:"subject,omitempty"` // of the leaf, by CN, O, OU, C, L, ST: each must be there once and equal
}

// May is one path of policy_data that a fragment may set, and its bounds. A bound that is not given allows nothing.
type May struct {
	Capabilities []string `json:"capabilities,omitempty"` // the most that the container may have, with CAP_
	Mounts       []string `json:"mounts,omitempty"`       // destinations that may be mounted
	// Path is containers.NAME.FIELD, with a FIELD of [Fields], for a container of the measured policy; or containers.NAME for one
	// that it does not have.
	Path       string   `json:"path"`
	Registries []string `json:"registries,omitempty"` // what the image's every name begins with, to the end of a component
}

// Fields are those of a container that a fragment can set.
var Fields = []string{"args", "capabilities", "cwd", "env", "exec", "image", "mounts"}

// ReadIssuers reads a list of issuers in the shape of policy_data.issuers. The error is [ErrIssuers].
func ReadIssuers(text []byte) ([]Issuer, error) {
	var issuers []Issuer
	if err := strictjson.Known(text, &issuers); err != nil {
		return nil, fmt.Errorf("%w: %.200v", ErrIssuers, err)
	}
	return issuers, Check(issuers)
}

// ErrIssuers says that what a policy says of issuers is not understood.
var ErrIssuers = errors.New("policy_data.issuers is not understood")

// Issuers reads those that the text of a policy names. None is no error.
func Issuers(text []byte) ([]Issuer, error) {
	p, err := policytext.Split(text)
	if errors.Is(err, policytext.ErrTwice) {
		return nil, fmt.Errorf("%w: %w", ErrIssuers, err)
	}
	if err != nil {
		return nil, nil // in no shape that has issuers
	}
	var data struct {
		Issuers json.RawMessage `json:"issuers"`
	}
	if err := strictjson.Unmarshal(p.Data, &data); err != nil || data.Issuers == nil {
		return nil, nil
	}
	return ReadIssuers(data.Issuers)
}

// Check holds issuers to what this package understands. The error is [ErrIssuers].
func Check(issuers []Issuer) error {
	if len(issuers) > MaxIssuers {
		return fmt.Errorf("%w: %d of them, at most %d", ErrIssuers, len(issuers), MaxIssuers)
	}
	seen := map[string]bool{}
	for i := range issuers {
		if err := issuers[i].check(); err != nil {
			return fmt.Errorf("%w: issuers[%d]: %w", ErrIssuers, i, err)
		}
		if line := issuers[i].Line(); seen[line] {
			return fmt.Errorf("%w: issuers[%d] is there twice", ErrIssuers, i)
		} else {
			seen[line] = true
		}
	}
	return nil
}

func (i *Issuer) check() error {
	if err := checkName(i.Feed, maxFeed); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	given := 0
	for _, form := range []string{i.DID, i.Key, i.Root} {
		if form != "" {
			given++
		}
	}
	if given != 1 || (i.Root != "") != (len(i.Subject) > 0) {
		return errors.New("want exactly one of key, root with subject, and did")
	}
	if len(i.May) == 0 {
		return errors.New("may is empty, so that it could set nothing")
	}
	for k, m := range i.May {
		if _, _, err := m.Target(); err != nil {
			return err
		}
		if slices.ContainsFunc(i.May[:k], func(o May) bool { return o.Path == m.Path }) { // whose bounds would count
			return fmt.Errorf("may: path %.60q is there twice", m.Path)
		}
	}
	if i.Key != "" {
		_, err := i.rawKey()
		return err
	}
	_, err := i.anchor()
	return err
}

// checkName refuses what would not be one word in a log.
func checkName(name string, longest int) error {
	if name == "" || len(name) > longest || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII || unicode.IsControl(r) }) {
		return fmt.Errorf("%.40q is not one word of at most %d ASCII characters", name, longest)
	}
	return nil
}

// Target takes the path apart. field is empty for a container as a whole.
func (m May) Target() (container, field string, err error) {
	parts := strings.Split(m.Path, ".")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "containers" || parts[1] == "" || strings.HasPrefix(parts[1], "$") {
		return "", "", fmt.Errorf("may: path %.60q is not containers.NAME or containers.NAME.FIELD", m.Path)
	}
	if len(parts) == 3 {
		field = parts[2]
		if !slices.Contains(Fields, field) {
			return "", "", fmt.Errorf("may: path %.60q has a field that is not one of %v", m.Path, Fields)
		}
	}
	return parts[1], field, nil
}

// ID names whose signature counts, in one word: key:sha256:… or x509:sha256:…:CN=….
func (i *Issuer) ID() string {
	if i.Key != "" {
		der, err := base64.StdEncoding.Strict().DecodeString(i.Key)
		if err != nil {
			return "key:unreadable"
		}
		sum := sha256.Sum256(der)
		return "key:sha256:" + hex.EncodeToString(sum[:])
	}
	a, err := i.anchor()
	if err != nil {
		return "x509:unreadable"
	}
	return a.id()
}

// Line names the issuer with its feed: what SVNs are counted for.
func (i *Issuer) Line() string { return i.ID() + " " + i.Feed }

func (i *Issuer) rawKey() (crypto.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(i.Key)
	if err != nil {
		return nil, fmt.Errorf("key is not base64: %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("key is no SubjectPublicKeyInfo: %w", err)
	}
	if _, err := AlgorithmFor(key); err != nil {
		return nil, err
	}
	return key, nil
}

// publicKey is what the issuer's signatures verify with.
func (i *Issuer) publicKey(chain [][]byte) (crypto.PublicKey, error) {
	if i.Key != "" {
		return i.rawKey()
	}
	a, err := i.anchor()
	if err != nil {
		return nil, err
	}
	return a.leafKey(chain)
}

// MayMake says whether the issuer may make a container of that name, where the measured policy has none.
func (i *Issuer) MayMake(container string) bool { return i.grants(container, "", false) != nil }

// Within says whether all that this issuer may set, another may set too, of the same ID and feed: each path within its bounds,
// and from no lower SVN on.
func (i *Issuer) Within(other Issuer) bool {
	return i.Line() == other.Line() && i.MinimumSVN >= other.MinimumSVN && !slices.ContainsFunc(i.May, func(m May) bool {
		return !slices.ContainsFunc(other.May, func(o May) bool {
			return m.Path == o.Path && subset(m.Registries, o.Registries) && subset(m.Capabilities, o.Capabilities) && subset(m.Mounts, o.Mounts)
		})
	})
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
