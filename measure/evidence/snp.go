// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

// SNP is an attestation report with what is needed to verify it.
type SNP struct {
	// Report is the raw report, 1184 bytes, versions 2 to 5 (SEV-SNP ABI, table 23).
	Report []byte
	// Certs holds the VCEK or VLEK certificate: DER, PEM, or the certificate table of an extended report. Roots in it are ignored. If
	// empty, the certificate is missing unless Options.Fetch gets it.
	Certs []byte
	// Nonce is what the verifier sent, at most 64 bytes: the start of REPORT_DATA, zeros behind.
	Nonce []byte
	Bound Bound
	// Policy is the text of the policy; nil: it is not known. Where it names issuers, Record alone shows what they have updated.
	Policy []byte
	// Record is the record of the pod's life; nil: it is not asked for. The report data are then those of [record.ReportData].
	Record *SignedRecord
}

// VerifySNP makes the checks "format", "signature", "revocation" (with Fetch), "firmware", "debug", "nonce", "hostdata", and
// "measurement" or "id-key".
func VerifySNP(ctx context.Context, e SNP, o Options) Result {
	r := Result{Kind: "snp", Verdict: Unknown}
	report := r.snpReport(ctx, "", e.Report, e.Certs, o)
	if report != nil {
		r.reportData(report.GetReportData(), e.Nonce, e.Bound, e.Record, o)
		r.unseen(e.Policy, e.Record)
		r.field("hostdata", report.GetHostData(), e.Bound)
		r.launchedSNP("", report.GetMeasurement(), report.GetIdKeyDigest(), o.Reference)
		unused := o.Reference
		unused.Measurements, unused.IDKeys = nil, nil
		r.ignored(unused)
	}
	return r.finish()
}

// snpReport makes the checks that do not depend on what the report is for. It returns nil when there is no report to read.
// The names of the checks begin with prefix.
func (r *Result) snpReport(ctx context.Context, prefix string, raw, certs []byte, o Options) *spb.Report {
	report, err := parseSNP(raw)
	r.result(prefix+"format", err)
	if err != nil {
		return nil
	}
	at := &spb.Attestation{Report: report, CertificateChain: &spb.CertificateChain{}}
	r.snpSignature(ctx, prefix, at, certs, o)
	policy, err := abi.ParseSnpPolicy(report.GetPolicy())
	switch {
	case err != nil:
		r.result(prefix+"debug", err)
	case policy.Debug:
		r.closed(prefix, "the guest's policy allows debugging: the host can read and write its memory", o)
	case policy.MigrateMA:
		r.closed(prefix, "the guest's policy allows a migration agent: one that the host chose can read and write its memory", o)
	default:
		r.closed(prefix, "", o)
	}
	return report
}

// parseSNP parses and checks the format; ReportToProto alone accepts any version.
func parseSNP(raw []byte) (*spb.Report, error) {
	if len(raw) != abi.ReportSize {
		return nil, fmt.Errorf("report of %d bytes, want %d", len(raw), abi.ReportSize)
	}
	if err := abi.ValidateReportFormat(raw); err != nil {
		return nil, err
	}
	return abi.ReportToProto(raw)
}

// snpSignature checks the chain from AMD's root to the report, and the report's TCB against the certificate's.
func (r *Result) snpSignature(ctx context.Context, prefix string, at *spb.Attestation, certs []byte, o Options) {
	opts := &verify.Options{TrustedRoots: o.SNPRoots, Now: o.now(), DisableCertFetching: !o.Fetch, Getter: o.SNPGetter}
	if !r.snpSigned(ctx, prefix, at, certs, opts) {
		r.skip(prefix+"firmware", "")
		r.skipNetwork()
		return
	}
	if !o.Fetch {
		r.skipNetwork()
	} else {
		opts.CheckRevocations = true
		r.reached(prefix+"revocation", verify.SnpAttestationContext(ctx, at, opts))
	}
	r.result(prefix+"firmware", validateSNP(at))
}

// snpSigned checks the chain alone, and says whether it holds.
func (r *Result) snpSigned(ctx context.Context, prefix string, at *spb.Attestation, certs []byte, opts *verify.Options) bool {
	chain := at.CertificateChain
	if err := addCerts(chain, certs); err != nil {
		r.result(prefix+"signature", err)
		return false
	}
	if len(chain.GetVcekCert()) == 0 && len(chain.GetVlekCert()) == 0 && opts.DisableCertFetching {
		file := "--certs"
		if prefix != "" {
			file = "--hcl-certs"
		}
		r.unknown(prefix+"signature", "the VCEK or VLEK certificate is missing; give it with "+file+", or let --fetch download it")
		return false
	}
	if line := snpLine(at); line != "Milan" && line != "Genoa" {
		r.add(Check{Name: prefix + "signature", Verdict: Unknown, Reason: Unreadable,
			Detail: fmt.Sprintf("certificates and firmware versions of this processor line (%.20s) cannot be read yet, only Milan's and Genoa's", line)})
		return false
	}
	if report := at.GetReport(); report.GetCpuid1EaxFms() == 0 {
		// A report of version 2 does not say. Where the library has to assume a line, it says so on standard output.
		at.Product = &spb.SevProduct{Name: spb.SevProduct_SEV_PRODUCT_MILAN}
		if snpLine(at) == "Genoa" {
			at.Product.Name = spb.SevProduct_SEV_PRODUCT_GENOA
		}
	}
	err := verify.SnpAttestationContext(ctx, at, opts)
	var unreachable *trust.AttestationRecreationErr
	if errors.As(err, &unreachable) || errors.Is(err, verify.ErrMissingVlek) {
		r.unknown(prefix+"signature", err.Error())
		return false
	}
	r.result(prefix+"signature", err)
	return err == nil
}

// oidProductName is the extension of AMD's certificates that names the processor (VCEK certificate specification, 3.1).
var oidProductName = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 2}

// snpLine names the line of the processor that made the report: by the family, model and stepping in it (version 3 on), else by
// the certificate. A line that the library does not know is "Unknown"; a report without either counts as Milan, as it does for AMD's tools.
func snpLine(at *spb.Attestation) string {
	if fms := at.GetReport().GetCpuid1EaxFms(); fms != 0 {
		return kds.ProductLineFromFms(fms)
	}
	for _, der := range [][]byte{at.GetCertificateChain().GetVcekCert(), at.GetCertificateChain().GetVlekCert()} {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		for _, e := range cert.Extensions {
			var name string
			if _, err := asn1.UnmarshalWithParams(e.Value, &name, "ia5"); e.Id.Equal(oidProductName) && err == nil {
				line, _, _ := strings.Cut(name, "-")
				return line
			}
		}
	}
	return "Milan"
}

// reached is result for a check that needs the network.
func (r *Result) reached(name string, err error) {
	var noList *verify.CRLUnavailableErr
	if errors.As(err, &noList) {
		r.unknown(name, fmt.Sprintf("%.300s", err))
		return
	}
	r.result(name, err)
}

// validateSNP checks the TCB versions and the chip id of the report against its certificate. What the guest policy allows is
// not restricted here.
func validateSNP(at *spb.Attestation) error {
	policy, err := abi.ParseSnpPolicy(at.GetReport().GetPolicy())
	if err != nil {
		return err
	}
	return validate.SnpAttestation(at, &validate.Options{GuestPolicy: policy, PermitProvisionalFirmware: true})
}

// addCerts takes the endorsement key's certificate from DER, PEM or a certificate table.
func addCerts(chain *spb.CertificateChain, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var ders [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		if data[0] != 0x30 {
			table := new(abi.CertTable)
			if err := table.Unmarshal(data); err != nil {
				return fmt.Errorf("the certificate is neither DER nor PEM, nor in a certificate table: %w", err)
			}
			// Each is empty where the table has none. The library's own reading of the table says so on standard output.
			chain.VcekCert, _ = table.GetByGUIDString(abi.VcekGUID)
			chain.VlekCert, _ = table.GetByGUIDString(abi.VlekGUID)
			return nil
		}
		ders = [][]byte{data}
	}
	for _, der := range ders {
		cert, err := trust.ParseCert(der)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		switch cert.Subject.CommonName {
		case "SEV-VCEK":
			chain.VcekCert = der
		case "SEV-VLEK":
			chain.VlekCert = der
		}
	}
	return nil
}
