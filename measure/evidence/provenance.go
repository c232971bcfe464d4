// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	spb "github.com/google/go-sev-guest/proto/sevsnp"

	"portcullis/internal/strictjson"
)

// Provenance is what shows that a TPM holds the attestation key, and which. Give one of them.
type Provenance struct {
	// AKCert is the key's certificate and its intermediates, PEM or one DER; Options.AKRoots must lead to it.
	AKCert []byte
	// Challenge is what [NewChallenge] made for this key and a TPM's endorsement certificate, which Options.AKRoots must lead to,
	// and Answer what the TPM made of it (tpm2_activatecredential -o). An endorsement certificate alone shows nothing.
	Challenge *Challenge
	Answer    []byte
	// HCL is the paravisor's report of an Azure confidential VM (vTPM NV index 0x01400001). Its SNP report binds the runtime data in
	// which the key is.
	HCL []byte
	// HCLCerts holds the VCEK certificate of that SNP report; see [SNP].
	HCLCerts []byte
}

// provenance adds the check "ak", and with an HCL report those of its SNP report.
func (r *Result) provenance(ctx context.Context, ak *attestationKey, p Provenance, o Options) {
	switch {
	case p.HCL != nil:
		r.hclKey(ctx, ak, p, o)
	case (p.AKCert != nil || p.Challenge != nil) && o.AKRoots == nil:
		r.add(Check{Name: "ak", Verdict: Unknown, Reason: AKUnbound, Detail: "no roots were given for the key's certificate"})
	case p.Challenge != nil:
		r.result("ak", ak.activated(p.Challenge, p.Answer, o))
	case p.AKCert != nil:
		r.result("ak", ak.certified(p.AKCert, o))
	case o.TrustAK:
		r.add(Check{Name: "ak", Verdict: Pass, Detail: "trusted without proof, as asked"})
		r.skip("ak", "nothing was asked of who holds the attestation key")
	default:
		r.add(Check{Name: "ak", Verdict: Unknown, Reason: AKUnbound,
			Detail: "nothing shows that a TPM holds this key; give its certificate, an answered challenge or an HCL report, or trust it"})
	}
}

// certified verifies the chain to the key's certificate.
func (ak *attestationKey) certified(certs []byte, o Options) error {
	chain, err := parseChain(certs)
	if err != nil {
		return err
	}
	if !ak.is(chain[0].PublicKey) {
		return errors.New("the certificate is of another key")
	}
	return verifyChain(chain, o)
}

// parseChain reads certificates in PEM, or one in DER: a leaf, and its intermediates. It returns at least one.
func parseChain(certs []byte) ([]*x509.Certificate, error) {
	if block, _ := pem.Decode(certs); block == nil {
		certs = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs})
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(certs); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// is says whether pub is the attestation key.
func (ak *attestationKey) is(pub crypto.PublicKey) bool {
	k, ok := ak.pub.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(pub)
}

// The HCL report: a header of 32 bytes, the hardware report in an area of 1184, and IGVM_REQUEST_DATA: u32 data size,
// version, report type, hash type, and length of the runtime data that follows.
const (
	hclMagic         = "HCLA"
	hclReportAt      = 32
	hclRequestAt     = hclReportAt + 1184
	hclRuntimeAt     = hclRequestAt + 20
	hclTypeSNP       = 2
	hclHashSHA256    = 1
	maxHCL           = 16 << 10
	hclAKName        = "HCLAkPub"
	reportDataLength = 64
)

// hclReport is the part of an HCL report that binds a key.
type hclReport struct {
	hardware []byte // SNP report
	runtime  []byte // JSON
}

func parseHCL(data []byte) (*hclReport, error) {
	if len(data) < hclRuntimeAt || len(data) > maxHCL || string(data[:4]) != hclMagic {
		return nil, errors.New("not an HCL report")
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	if t := u32(hclRequestAt + 8); t != hclTypeSNP {
		return nil, fmt.Errorf("hardware report of type %d, only SNP's (%d) can be verified", t, hclTypeSNP)
	}
	if t := u32(hclRequestAt + 12); t != hclHashSHA256 {
		return nil, fmt.Errorf("runtime data hashed by %d, want SHA-256 (%d)", t, hclHashSHA256)
	}
	n := u32(hclRequestAt + 16)
	if uint64(n) > uint64(len(data)-hclRuntimeAt) {
		return nil, fmt.Errorf("runtime data of %d bytes in a report of %d", n, len(data))
	}
	return &hclReport{hardware: data[hclReportAt:hclRequestAt], runtime: data[hclRuntimeAt:][:n]}, nil
}

// key returns the attestation key in the runtime data.
func (h *hclReport) key() (*rsa.PublicKey, error) {
	var runtime struct {
		Keys []struct {
			ID  string `json:"kid"`
			Kty string `json:"kty"`
			N   string `json:"n"`
			E   string `json:"e"`
		} `json:"keys"`
	}
	if err := strictjson.Unmarshal(h.runtime, &runtime); err != nil {
		return nil, fmt.Errorf("runtime data: %w", err)
	}
	for _, k := range runtime.Keys {
		if k.ID != hclAKName {
			continue
		}
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", hclAKName, err)
		}
		e, err := base64.RawURLEncoding.DecodeString(k.E)
		if err != nil || k.Kty != "RSA" || len(e) == 0 || len(e) > 4 {
			return nil, fmt.Errorf("%s is not an RSA key", hclAKName)
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	}
	return nil, fmt.Errorf("the runtime data has no key %s", hclAKName)
}

// hclKey checks that the key is in the runtime data, that the SNP report binds the runtime data, and the SNP report itself. Its host
// data is not looked at: under a paravisor it is not the workload owner's.
func (r *Result) hclKey(ctx context.Context, ak *attestationKey, p Provenance, o Options) {
	hcl, err := parseHCL(p.HCL)
	if err != nil {
		r.add(Check{Name: "ak", Verdict: Unknown, Reason: AKUnbound, Detail: fmt.Sprintf("%.300s", err)})
		return
	}
	before := len(r.Checks)
	report := r.snpReport(ctx, "hcl-", hcl.hardware, p.HCLCerts, o)
	r.paravisor(report, o.Reference)
	if err := hcl.binds(report, ak); err != nil {
		r.result("ak", err)
		return
	}
	for _, c := range r.Checks[before:] {
		if c.Verdict != Pass {
			r.add(Check{Name: "ak", Verdict: c.Verdict, Reason: AKUnbound, Detail: "the HCL report's SNP report is not verified: " + c.Name})
			return
		}
	}
	r.add(Check{Name: "ak", Verdict: Pass, Detail: "in the runtime data that the paravisor's SNP report binds"})
}

// paravisor checks that the report was made by the expected paravisor. Any SNP guest can have a report made over runtime data of
// its own: only the software of VMPL 0, with a measurement or signer that the verifier knows, says that a TPM holds the key in it.
func (r *Result) paravisor(report *spb.Report, ref Reference) {
	if report == nil {
		return
	}
	if v := report.GetVmpl(); v != 0 {
		r.add(Check{Name: "hcl-vmpl", Verdict: Unknown, Reason: AKUnbound,
			Detail: fmt.Sprintf("the report is of VMPL %d, a paravisor's is of VMPL 0", v)})
	} else {
		r.result("hcl-vmpl", nil)
	}
	r.launchedSNP("hcl-", report.GetMeasurement(), report.GetIdKeyDigest(), ref)
}

// binds says why the report does not bind the key.
func (h *hclReport) binds(report *spb.Report, ak *attestationKey) error {
	key, err := h.key()
	if err != nil {
		return err
	}
	if !ak.is(key) {
		return errors.New("the HCL report is of another key")
	}
	sum := sha256.Sum256(h.runtime)
	if report == nil || !bytes.Equal(report.GetReportData(), fit(sum[:], reportDataLength)) {
		return errors.New("the SNP report does not bind the runtime data")
	}
	return nil
}
