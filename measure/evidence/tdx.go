// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"crypto/x509"
	_ "embed" // Intel's root
	"encoding/binary"
	"fmt"

	"github.com/google/go-tdx-guest/abi"
	tpb "github.com/google/go-tdx-guest/proto/tdx"
	"github.com/google/go-tdx-guest/verify"
	"github.com/google/go-tdx-guest/verify/trust"
)

// TDX is a quote with what is needed to verify it. A quote is for a verifier outside; inside the guest it proves nothing,
// because the host hands it over.
type TDX struct {
	// Quote is the raw quote, version 4, with its certificate chain in it (Intel TDX DCAP Quoting Library API, A.3).
	Quote []byte
	// Nonce is what the verifier sent, at most 64 bytes: the start of REPORTDATA, zeros behind.
	Nonce []byte
	Bound Bound
	// Policy is the text of the policy; nil: it is not known. Where it names issuers, Record alone shows what they have updated.
	Policy []byte
	// Record is the record of the pod's life; nil: it is not asked for. The report data are then those of [record.ReportData].
	Record *SignedRecord
}

// maxTDXQuote bounds a quote with its certificates, in bytes.
const maxTDXQuote = 64 << 10

// VerifyTDX makes the checks "format", "signature", "collateral" (with Fetch), "debug", "nonce", "mrconfigid", "measurement",
// "rtmr1" and "rtmr2".
func VerifyTDX(_ context.Context, e TDX, o Options) Result {
	r := Result{Kind: "tdx", Verdict: Unknown}
	if len(e.Quote) >= 2 && binary.LittleEndian.Uint16(e.Quote) == 5 {
		r.add(Check{Name: "format", Verdict: Unknown, Reason: Unreadable, Detail: "quote of version 5, only version 4 can be verified"})
		return r.finish()
	}
	quote, err := parseTDX(e.Quote)
	r.result("format", err)
	if err != nil {
		return r.finish()
	}
	r.tdxSignature(quote, o)
	body := quote.GetTdQuoteBody()
	r.closed("", tdxOpen(body.GetTdAttributes()), o)
	r.reportData(body.GetReportData(), e.Nonce, e.Bound, e.Record, o)
	r.unseen(e.Policy, e.Record)
	r.field("mrconfigid", body.GetMrConfigId(), e.Bound)
	r.launchedTDX(body.GetMrTd(), body.GetRtmrs(), o.Reference)
	unused := o.Reference
	unused.Measurements, unused.RTMRs = nil, nil
	r.ignored(unused)
	return r.finish()
}

// Bits of a TD's ATTRIBUTES (TDX module ABI specification, ATTRIBUTES).
const (
	tdxUnderDebug = 0xff    // 7:0, any of which makes it a TD under debug; bit 0 is DEBUG
	tdxMigratable = 1 << 29 // by a migration TD
)

// tdxOpen says by what the host can get at the TD's memory; empty for nothing.
func tdxOpen(attributes []byte) string {
	bits := binary.LittleEndian.Uint64(attributes)
	switch {
	case bits&tdxUnderDebug != 0:
		return "the TD's attributes allow debugging: the host can read and write its memory, or watch what it does"
	case bits&tdxMigratable != 0:
		return "the TD's attributes allow migration: a migration TD that the host chose can read and write its memory"
	}
	return ""
}

func parseTDX(raw []byte) (*tpb.QuoteV4, error) {
	if len(raw) > maxTDXQuote {
		return nil, fmt.Errorf("quote of %d bytes, at most %d are expected", len(raw), maxTDXQuote)
	}
	quote, err := abi.QuoteToProto(raw)
	if err != nil {
		return nil, err
	}
	v4, ok := quote.(*tpb.QuoteV4)
	if !ok {
		return nil, fmt.Errorf("unexpected quote %T", quote)
	}
	return v4, abi.CheckQuoteV4(v4)
}

// intelRoot is Intel's root of SGX and TDX attestation, as https://certificates.trustedservices.intel.com has it. The library has
// it too, but says on standard output that it uses it.
//
//go:embed intel-root.pem
var intelRoot []byte

// tdxRoots are the roots given, or Intel's.
func tdxRoots(o Options) *x509.CertPool {
	if o.TDXRoots != nil {
		return o.TDXRoots
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(intelRoot)
	return p
}

// tdxSignature verifies without the network first, so that no failure to reach Intel can be taken for a bad quote.
func (r *Result) tdxSignature(quote *tpb.QuoteV4, o Options) {
	opts := verify.Options{Now: o.now(), TrustedRoots: tdxRoots(o)}
	err := verify.TdxQuote(quote, &opts)
	r.result("signature", err)
	if err != nil {
		return
	}
	if !o.Fetch {
		r.skipNetwork()
		return
	}
	getter := &watchedGetter{HTTPSGetter: o.TDXGetter}
	if getter.HTTPSGetter == nil {
		getter.HTTPSGetter = trust.DefaultHTTPSGetter()
	}
	full := verify.Options{Now: o.now(), TrustedRoots: tdxRoots(o), GetCollateral: true, CheckRevocations: true, Getter: getter}
	err = verify.TdxQuote(quote, &full)
	if err != nil && getter.failed {
		r.unknown("collateral", fmt.Sprintf("%.300s", err))
		return
	}
	r.result("collateral", err)
}

// watchedGetter notes that a download failed; the library's errors do not tell that from a bad answer.
type watchedGetter struct {
	trust.HTTPSGetter
	failed bool
}

func (g *watchedGetter) Get(url string) (map[string][]string, []byte, error) {
	header, body, err := g.HTTPSGetter.Get(url)
	g.failed = g.failed || err != nil
	return header, body, err
}
