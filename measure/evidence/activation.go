// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Challenge asks a TPM to show that the key of an endorsement certificate and an attestation key are in it together (TPM 2.0
// Part 1, 24, credential protection). The verifier sends Credential, keeps the rest to itself, and gives it back with the answer.
type Challenge struct {
	// Credential is what tpm2_activatecredential takes with -i.
	Credential []byte `json:"credential"`
	// Secret is what only that TPM can tell: the answer must be the same.
	Secret []byte `json:"secret"`
	// AKName is the TPM name of the attestation key that was asked for.
	AKName []byte `json:"akName"`
	// EKCert is the endorsement certificate, with its intermediates, as it was given.
	EKCert []byte `json:"ekCert"`
}

// secretSize is the length of a challenge's secret in bytes; a credential holds at most a digest of the name's hash.
const secretSize = 32

// NewChallenge makes a challenge for the attestation key ak, a TPM2B_PUBLIC or TPMT_PUBLIC, and the endorsement certificate
// ekCert, PEM or DER, of an RSA-2048 or P-256 key after the default templates (TCG EK Credential Profile, L-1 and L-2).
// It does not verify the certificate; [VerifyTPM] does.
func NewChallenge(random io.Reader, ekCert, ak []byte) (Challenge, error) {
	key, err := parseAK(ak)
	if err != nil {
		return Challenge{}, fmt.Errorf("attestation key: %w", err)
	}
	if key.public == nil {
		return Challenge{}, errors.New("attestation key: a PEM does not name a TPM's key; give its TPM2B_PUBLIC")
	}
	name, err := tpm2.ObjectName(key.public)
	if err != nil {
		return Challenge{}, fmt.Errorf("attestation key: %w", err)
	}
	chain, err := parseChain(ekCert)
	if err != nil {
		return Challenge{}, fmt.Errorf("endorsement key: %w", err)
	}
	ek, err := endorsementKey(chain[0])
	if err != nil {
		return Challenge{}, fmt.Errorf("endorsement key: %w", err)
	}
	secret := make([]byte, secretSize)
	if _, err := io.ReadFull(random, secret); err != nil {
		return Challenge{}, err
	}
	object, encrypted, err := tpm2.CreateCredential(random, ek, name.Buffer, secret)
	if err != nil {
		return Challenge{}, fmt.Errorf("credential: %w", err)
	}
	return Challenge{Credential: credentialFile(object, encrypted), Secret: secret, AKName: name.Buffer, EKCert: ekCert}, nil
}

// credentialFile is the format of tpm2-tools: magic, version 1, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
func credentialFile(object, encrypted []byte) []byte {
	file := []byte{0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1}
	for _, part := range [][]byte{object, encrypted} {
		file = append(binary.BigEndian.AppendUint16(file, uint16(len(part))), part...)
	}
	return file
}

// endorsementKey rebuilds the TPM's description of an endorsement key, which a certificate does not hold, from its template.
func endorsementKey(cert *x509.Certificate) (tpm2.LabeledEncapsulationKey, error) {
	var public tpm2.TPMTPublic
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 {
			return nil, fmt.Errorf("RSA key of %d bits, want 2048", key.N.BitLen())
		}
		public = tpm2.RSAEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil || len(point) != 65 {
			return nil, errors.New("curve is not P-256")
		}
		public = tpm2.ECCEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})
	default:
		return nil, fmt.Errorf("unsupported key %T", key)
	}
	return tpm2.ImportEncapsulationKey(&public)
}

// activated says why the answer to a challenge does not show that a genuine TPM holds the key.
func (ak *attestationKey) activated(c *Challenge, answer []byte, o Options) error {
	if ak.public == nil {
		return errors.New("a PEM does not name a TPM's key; give its TPM2B_PUBLIC")
	}
	name, err := tpm2.ObjectName(ak.public)
	if err != nil {
		return err
	}
	if len(c.Secret) != secretSize || subtle.ConstantTimeCompare(c.Secret, answer) != 1 {
		return errors.New("the answer to the challenge is wrong")
	}
	if string(name.Buffer) != string(c.AKName) {
		return errors.New("the challenge was for another key")
	}
	chain, err := parseChain(c.EKCert)
	if err != nil {
		return err
	}
	return verifyChain(chain, o)
}

// subjectAltName is critical in endorsement certificates, whose subject is empty, and holds the TPM's make, which crypto/x509 does
// not read.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// verifyChain verifies a key's certificate up to Options.AKRoots.
func verifyChain(chain []*x509.Certificate, o Options) error {
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, subjectAltName.Equal)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: o.AKRoots, Intermediates: intermediates, CurrentTime: o.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}
