// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/testing/data"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"portcullis/images"
	"portcullis/images/signature"
	"portcullis/internal/imagestest"
)

const (
	issuer  = "https://token.example"
	builder = "builder@example.org"
)

// sigstore is a certificate authority, logs and time stamps in memory, as sigstore-go has them for tests. Its certificates are
// in no log of certificates, so the root of trust names none.
type sigstore struct {
	t *testing.T
	*ca.VirtualSigstore
}

func newSigstore(t *testing.T) sigstore {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	return sigstore{t, virtual}
}

func (s sigstore) root() *root.TrustedRoot {
	s.t.Helper()
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(), nil, s.TimestampingAuthorities(), s.RekorLogs())
	if err != nil {
		s.t.Fatal(err)
	}
	return trusted
}

// simple puts a signature of cosign's first form beside an image.
func (s sigstore) simple(store *imagestest.Store, img *images.Image, signed digest.Digest, at time.Time) {
	s.t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, signed)
	entity, err := s.SignAtTime(builder, issuer, payload, at)
	check(s.t, err)
	certificate, entry := s.material(entity)
	content, err := entity.SignatureContent()
	check(s.t, err)
	kept := map[string]any{
		"SignedEntryTimestamp": entry.InclusionPromise.SignedEntryTimestamp,
		"Payload": map[string]any{"body": entry.CanonicalizedBody, "integratedTime": entry.IntegratedTime, "logIndex": entry.LogIndex,
			"logID": hex.EncodeToString(entry.LogId.KeyId)},
	}
	layer := store.AddBlob("application/vnd.dev.cosign.simplesigning.v1+json", payload)
	layer.Annotations = map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(content.Signature()),
		"dev.sigstore.cosign/certificate":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		"dev.sigstore.cosign/bundle":         string(marshal(s.t, kept)),
	}
	manifest := marshal(s.t, ocispec.Manifest{Layers: []ocispec.Descriptor{layer}})
	store.Name(beside(img), store.AddBlob(ocispec.MediaTypeImageManifest, manifest))
}

// bundled puts a bundle with a statement about an image beside it, under the tag of registries that know no referrers.
func (s sigstore) bundled(store *imagestest.Store, img *images.Image, signed digest.Digest, predicate string, at time.Time) {
	s.t.Helper()
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, signed.Encoded(), predicate)
	entity, err := s.AttestAtTime(builder, issuer, statement, at, true)
	check(s.t, err)
	certificate, entry := s.material(entity)
	content, err := entity.SignatureContent()
	check(s.t, err)
	text, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate}},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: "application/vnd.in-toto+json",
			Signatures: []*protodsse.Signature{{Sig: content.Signature()}},
		}},
	})
	check(s.t, err)
	refer(s.t, store, img, text)
}

// refer stores a bundle as an artifact that refers to an image.
func refer(t *testing.T, store *imagestest.Store, img *images.Image, bundle []byte) {
	t.Helper()
	const kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
	artifact := store.AddBlob(ocispec.MediaTypeImageManifest,
		marshal(t, ocispec.Manifest{ArtifactType: kind, Layers: []ocispec.Descriptor{store.AddBlob(kind, bundle)}}))
	artifact.ArtifactType = kind
	index := marshal(t, ocispec.Index{Manifests: []ocispec.Descriptor{artifact}})
	store.Name(img.Reference.Name()+":sha256-"+img.Digests.Lock().Encoded(), store.AddBlob(ocispec.MediaTypeImageIndex, index))
}

// material is the certificate, and the entry in the log.
func (s sigstore) material(entity *ca.TestEntity) ([]byte, *protorekor.TransparencyLogEntry) {
	s.t.Helper()
	verification, err := entity.VerificationContent()
	check(s.t, err)
	entries, err := entity.TlogEntries()
	check(s.t, err)
	entry := entries[0].TransparencyLogEntry()
	var kind struct{ APIVersion, Kind string }
	check(s.t, json.Unmarshal(entry.CanonicalizedBody, &kind))
	entry.KindVersion = &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		Body: entry.CanonicalizedBody, IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: hex.EncodeToString(entry.LogId.KeyId),
	})
	check(s.t, err)
	entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return verification.Certificate().Raw, entry
}

func TestASignatureByAnIdentityCountsForItAlone(t *testing.T) {
	const other = digest.Digest("sha256:0000000000000000000000000000000000000000000000000000000000000000")
	const sign = "https://sigstore.dev/cosign/sign/v1"
	soon := func() time.Time { return time.Now().Add(5 * time.Minute) } // the certificate is valid for ten
	for _, c := range []struct {
		name, identity string
		foreign        bool // the signature is of another Sigstore
		late           bool // the log took it when the certificate was no longer valid
		of             digest.Digest
		predicate      string
		want           error
	}{
		{name: "by its name", identity: "identity=" + builder},
		{name: "by a pattern", identity: "identity-regexp=.*@example[.]org"},
		{name: "by a part of a name", identity: "identity=builder@example", want: signature.ErrForeign},
		{name: "by a pattern of a part", identity: "identity-regexp=example", want: signature.ErrForeign},
		{name: "by another name", identity: "identity=other@example.org", want: signature.ErrForeign},
		{name: "under another root of trust", identity: "identity=" + builder, foreign: true, want: signature.ErrForeign},
		{name: "after the certificate's time", identity: "identity=" + builder, late: true, want: signature.ErrForeign},
		{name: "of another image", identity: "identity=" + builder, of: other, want: signature.ErrForeign},
		{name: "that says something else of the image", identity: "identity=" + builder, predicate: "https://slsa.dev/provenance/v1", want: signature.ErrForeign},
	} {
		for _, form := range []string{"simple", "bundle"} {
			if form == "simple" && c.predicate != "" {
				continue
			}
			t.Run(form+" "+c.name, func(t *testing.T) {
				store, img, _ := signed(t, "registry.example/ec:v1")
				delete(store.Names, beside(img))
				by := newSigstore(t)
				trusted := by.root()
				if c.foreign {
					trusted = newSigstore(t).root()
				}
				at, of, predicate := soon(), img.Digests.Manifest, sign
				if c.late {
					at = time.Now().Add(20 * time.Minute)
				}
				if c.of != "" {
					of = c.of
				}
				if c.predicate != "" {
					predicate = c.predicate
				}
				if form == "simple" {
					by.simple(store, img, of, at)
				} else {
					by.bundled(store, img, of, predicate, at)
				}
				signer, err := signature.NewIdentity("issuer="+issuer+","+c.identity, trusted)
				check(t, err)
				err = signature.Signers{signer}.Verify(t.Context(), []images.Store{store}, img)
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		}
	}
}

// A root of trust with logs of certificates asks for them: these certificates are in none.
func TestACertificateOfNoLogCountsForNothingWhereTheRootNamesLogs(t *testing.T) {
	store, img, _ := signed(t, "registry.example/ec:v1")
	by := newSigstore(t)
	by.simple(store, img, img.Digests.Manifest, time.Now().Add(5*time.Minute))
	signer, err := signature.NewIdentity("issuer="+issuer+",identity="+builder, by.VirtualSigstore)
	check(t, err)
	if err := (signature.Signers{signer}).Verify(t.Context(), []images.Store{store}, img); !errors.Is(err, signature.ErrForeign) {
		t.Errorf("got %v, want %v", err, signature.ErrForeign)
	}
}

func TestIdentitiesThatAreNoneAreRefused(t *testing.T) {
	trusted := data.TrustedRoot(t, "public-good.json")
	for _, text := range []string{
		"issuer=", "issuer=https://a.example", "issuer=https://a.example,identity=", "issuer=,identity=a", "issuer=https://a.example,name=a",
		"issuer=https://a.example,identity-regexp=(",
	} {
		if _, err := signature.NewIdentity(text, trusted); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	check(t, err)
	return text
}
