// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"portcullis/internal/strictjson"
)

// identitySigner is whom an identity provider knew by a name when Fulcio gave out a certificate.
type identitySigner struct {
	verifier *verify.Verifier
	who      verify.PolicyOption
}

// IsIdentity says whether text is meant for [NewIdentity].
func IsIdentity(text string) bool { return strings.HasPrefix(text, "issuer=") }

// NewIdentity is the signer of an identity, "issuer=URL,identity=NAME" or "issuer=URL,identity-regexp=PATTERN", where the
// pattern is for the whole name. The root of trust says which certificate authorities, logs and time stamps count: the
// signature must be in a transparency log and made while its certificate was valid, as a log or a time stamp says. Where
// the root names logs of certificates, the certificate must be in one of them.
func NewIdentity(text string, trusted root.TrustedMaterial) (Signer, error) {
	issuer, name, ok := strings.Cut(strings.TrimPrefix(text, "issuer="), ",")
	key, value, _ := strings.Cut(name, "=")
	if !ok || issuer == "" || value == "" || key != "identity" && key != "identity-regexp" {
		return nil, fmt.Errorf("identity %.200q: want issuer=URL,identity=NAME or issuer=URL,identity-regexp=PATTERN", text)
	}
	pattern := ""
	if key == "identity-regexp" {
		if _, err := regexp.Compile(value); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		value, pattern = "", "^(?:"+value+")$"
	}
	who, err := verify.NewShortCertificateIdentity(issuer, "", value, pattern)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	verifier, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		return nil, fmt.Errorf("verifier of an identity: %w", err)
	}
	return &identitySigner{verifier, verify.WithCertificateIdentity(who)}, nil
}

func (i *identitySigner) bundled(b *bundle.Bundle, image digest.Digest) bool {
	return signs(i.verifier, b, image, i.who)
}

func (i *identitySigner) simple(s simpleSignature) bool {
	b, err := s.bundle()
	if err != nil {
		return false
	}
	_, err = i.verifier.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(s.payload)), i.who))
	return err == nil
}

// bundle is the signature as the second form has it: what the annotations say of certificate, log and time.
func (s simpleSignature) bundle() (*bundle.Bundle, error) {
	certificates, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(s.annotations[certificateAnnotation]))
	if err != nil || len(certificates) == 0 {
		return nil, errors.New("no certificate")
	}
	entry, err := logEntry(s.annotations[entryAnnotation])
	if err != nil {
		return nil, err
	}
	var stamps *protobundle.TimestampVerificationData
	if text := s.annotations[timeAnnotation]; text != "" {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := strictjson.Unmarshal([]byte(text), &stamp); err != nil {
			return nil, err
		}
		stamps = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.SignedRFC3161Timestamp}},
		}
	}
	sum := sha256.Sum256(s.payload)
	return bundle.NewBundle(&protobundle.Bundle{
		MediaType: bundleType + "+json;version=0.1", // the one that may have a promise of the log alone
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
				Certificates: []*protocommon.X509Certificate{{RawBytes: certificates[0].Raw}},
			}},
			TlogEntries:               []*protorekor.TransparencyLogEntry{entry},
			TimestampVerificationData: stamps,
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     s.sum,
		}},
	})
}

// logEntry reads what cosign keeps of the log's answer: the entry, and the promise that it will be in the log.
func logEntry(text string) (*protorekor.TransparencyLogEntry, error) {
	var kept struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := strictjson.Unmarshal([]byte(text), &kept); err != nil {
		return nil, fmt.Errorf("entry of the log: %w", err)
	}
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := strictjson.Unmarshal(kept.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("body of the log's entry: %w", err)
	}
	id, err := hex.DecodeString(kept.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("id of the log: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: kept.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: kept.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: kept.SignedEntryTimestamp},
		CanonicalizedBody: kept.Payload.Body,
	}, nil
}
