// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstoresignature "github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"portcullis/images"
	"portcullis/images/signature"
)

const (
	inToto        = "application/vnd.in-toto+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// keyHolder signs bundles with a key, as cosign does with --key.
type keyHolder struct {
	t   *testing.T
	key sigstoresignature.SignerVerifier
}

func newKeyHolder(t *testing.T) keyHolder {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	key, err := sigstoresignature.LoadECDSASignerVerifier(private, crypto.SHA256)
	check(t, err)
	return keyHolder{t, key}
}

func (k keyHolder) signers() signature.Signers {
	signer, err := signature.NewKey(k.key)
	check(k.t, err)
	return signature.Signers{signer}
}

func (k keyHolder) sign(text string) []byte {
	sum, err := k.key.SignMessage(strings.NewReader(text))
	check(k.t, err)
	return sum
}

// envelope is a bundle with a statement in a DSSE envelope.
func (k keyHolder) envelope(payloadType, payload string) *protobundle.Bundle {
	sum := k.sign(fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	return k.bundle(&protobundle.Bundle{Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: []byte(payload), PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sum}},
	}}})
}

// message is a bundle with a signature of content itself.
func (k keyHolder) message(content []byte) *protobundle.Bundle {
	sum, err := hex.DecodeString(digest.FromBytes(content).Encoded())
	check(k.t, err)
	return k.bundle(&protobundle.Bundle{Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum}, Signature: k.sign(string(content)),
	}}})
}

func (k keyHolder) bundle(b *protobundle.Bundle) *protobundle.Bundle {
	b.MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	b.VerificationMaterial = &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "any"}},
	}
	return b
}

// statement says something of one subject, by the digest that alg names.
func statement(predicate, alg string, of digest.Digest) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{%q:%q}}],"predicateType":%q,"predicate":{"predicateType":%q}}`,
		alg, of.Encoded(), predicate, signPredicate)
}

func TestABundleCountsByItsKeyForTheSignedImageAlone(t *testing.T) {
	k, stranger := newKeyHolder(t), newKeyHolder(t)
	store, img, _ := signed(t, "registry.example/ec:v1")
	delete(store.Names, beside(img))
	d := img.Digests.Manifest
	other := store.Names["registry.example/plain:v1"].Digest
	twoSignatures := k.envelope(inToto, statement(signPredicate, "sha256", d))
	envelope := twoSignatures.GetDsseEnvelope()
	envelope.Signatures = append(envelope.Signatures, envelope.Signatures[0])
	for name, c := range map[string]struct {
		bundle *protobundle.Bundle
		want   error
	}{
		"as cosign makes it":        {k.envelope(inToto, statement(signPredicate, "sha256", d)), nil},
		"by another key":            {stranger.envelope(inToto, statement(signPredicate, "sha256", d)), signature.ErrForeign},
		"of another image":          {k.envelope(inToto, statement(signPredicate, "sha256", other)), signature.ErrForeign},
		"another statement":         {k.envelope(inToto, statement("https://slsa.dev/provenance/v1", "sha256", d)), signature.ErrForeign},
		"a digest of another kind":  {k.envelope(inToto, statement(signPredicate, "sha512", d)), signature.ErrForeign},
		"another type of payload":   {k.envelope("application/json", statement(signPredicate, "sha256", d)), signature.ErrForeign},
		"of nothing":                {k.envelope(inToto, `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"`+signPredicate+`","predicate":{}}`), signature.ErrForeign},
		"signed twice":              {twoSignatures, signature.ErrForeign},
		"of the manifest as a file": {k.message(store.Blobs[d]), signature.ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := protojson.Marshal(c.bundle)
			check(t, err)
			refer(t, store, img, text)
			err = k.signers().Verify(t.Context(), []images.Store{store}, img)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A key signs for keys and a certificate for identities, and a root of trust without logs trusts nobody.
func TestKeysAndIdentitiesDoNotSignForEachOther(t *testing.T) {
	store, img, _ := signed(t, "registry.example/ec:v1")
	delete(store.Names, beside(img))
	by, k := newSigstore(t), newKeyHolder(t)
	anybody := func(trusted *root.TrustedRoot) signature.Signers {
		signer, err := signature.NewIdentity("issuer="+issuer+",identity-regexp=.*", trusted)
		check(t, err)
		return signature.Signers{signer}
	}
	noLogs, err := root.NewTrustedRoot(root.TrustedRootMediaType01, by.FulcioCertificateAuthorities(), nil, by.TimestampingAuthorities(), nil)
	check(t, err)
	by.bundled(store, img, img.Digests.Manifest, signPredicate, time.Now().Add(5*time.Minute))
	check(t, anybody(by.root()).Verify(t.Context(), []images.Store{store}, img))
	for name, signers := range map[string]signature.Signers{"a key": k.signers(), "an identity without logs": anybody(noLogs)} {
		if err := signers.Verify(t.Context(), []images.Store{store}, img); !errors.Is(err, signature.ErrForeign) {
			t.Errorf("%s, of a certificate: %v", name, err)
		}
	}
	text, err := protojson.Marshal(k.envelope(inToto, statement(signPredicate, "sha256", img.Digests.Manifest)))
	check(t, err)
	refer(t, store, img, text)
	if err := anybody(by.root()).Verify(t.Context(), []images.Store{store}, img); !errors.Is(err, signature.ErrForeign) {
		t.Errorf("an identity, of a key: %v", err)
	}
}

// The policy is pinned to the index, of which a runtime may choose another manifest than was looked at here.
func TestASignedManifestDoesNotVouchForAnIndexOfSomebodyElse(t *testing.T) {
	const name = "registry.example/ec:v1"
	store, img, _ := signed(t, name)
	good, evil := store.Names[name], store.Names["registry.example/plain:v1"]
	good.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	evil.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"} // what many runtimes take for the same
	store.Name(name, store.AddBlob(ocispec.MediaTypeImageIndex, marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []ocispec.Descriptor{evil, good},
	})))
	stores := []images.Store{store}
	opener := signature.NewOpener(images.NewOpener(stores, images.Options{}), stores, keys(t, "ec"))
	_, err := opener.Image(t.Context(), name)
	if !errors.Is(err, signature.ErrUnsigned) {
		t.Fatalf("got %v, want %v", err, signature.ErrUnsigned)
	}
	if pinned := img.Digests.Manifest.String(); !strings.HasSuffix(err.Error(), "name the manifest of the platform, "+pinned) {
		t.Errorf("no hint at %s: %v", pinned, err)
	} else if _, err := opener.Image(t.Context(), "registry.example/ec@"+pinned); err != nil {
		t.Errorf("as the hint says: %v", err)
	}
}

// A registry may answer with as many artifacts, layers and bytes as it likes, and no more is fetched than the bounds say.
func TestWhatARegistryAnswersIsBounded(t *testing.T) {
	const kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
	k := newKeyHolder(t)
	for name, c := range map[string]struct {
		artifacts, layers, bytes int
		limit                    bool // else nobody's signature
	}{
		"many artifacts":       {129, 1, 10, true},
		"a bundle of 2 MiB":    {1, 1, 2 << 20, true},
		"many layers":          {1, 129, 10, true},
		"more than one bundle": {3, 100, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			store, img, _ := signed(t, "registry.example/ec:v1")
			delete(store.Names, beside(img))
			var found []ocispec.Descriptor
			var bundles []digest.Digest
			for n := range c.artifacts {
				var layers []ocispec.Descriptor
				for m := range c.layers {
					layer := store.AddBlob(kind, fmt.Appendf(nil, "%d%s", n*c.layers+m, strings.Repeat(" ", c.bytes)))
					layers, bundles = append(layers, layer), append(bundles, layer.Digest)
				}
				artifact := store.AddBlob(ocispec.MediaTypeImageManifest, marshal(t, ocispec.Manifest{ArtifactType: kind, Layers: layers}))
				artifact.ArtifactType = kind
				found = append(found, artifact)
			}
			store.Name(img.Reference.Name()+":sha256-"+img.Digests.Lock().Encoded(),
				store.AddBlob(ocispec.MediaTypeImageIndex, marshal(t, ocispec.Index{Manifests: found})))
			err := k.signers().Verify(t.Context(), []images.Store{store}, img)
			var limit *images.LimitError
			if errors.As(err, &limit) != c.limit || !c.limit && !errors.Is(err, signature.ErrForeign) {
				t.Errorf("got %v", err)
			}
			fetched := 0
			for _, d := range bundles {
				fetched += store.Fetched(d)
			}
			if want := map[bool]int{true: 0, false: c.artifacts}[c.limit]; fetched != want {
				t.Errorf("%d bundles were fetched, want %d", fetched, want)
			}
		})
	}
}
