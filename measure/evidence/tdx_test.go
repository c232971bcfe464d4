// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	tdxtest "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"

	"portcullis/measure/evidence"
)

// The quote of the library's test data is genuine, of a guest without MRCONFIGID. Intel's collateral beside it is of 2023.
var (
	quoteTime  = time.Date(2023, time.July, 1, 1, 0, 0, 0, time.UTC)
	quoteNonce = testdata.RawQuote[0x30+520:][:64]
)

const mrConfigIDAt = 0xE8

// mrtd and rtmrs are of that quote: the TD report's body begins at 0x30, MRTD lies at 136 in it and the registers at 328.
var (
	mrtd  = [][]byte{testdata.RawQuote[0x30+136:][:48]}
	rtmrs = map[int][][]byte{1: {testdata.RawQuote[0x30+328+48:][:48]}, 2: {testdata.RawQuote[0x30+328+96:][:48]}}
)

func TestTDX(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*evidence.TDX, *evidence.Options)
		exit    int
		check   string
		verdict evidence.Verdict
	}{
		{"genuine quote", func(*evidence.TDX, *evidence.Options) {}, 1, "signature", evidence.Pass},
		{"genuine quote's nonce", func(*evidence.TDX, *evidence.Options) {}, 1, "nonce", evidence.Pass},
		{"genuine quote binds nothing", func(*evidence.TDX, *evidence.Options) {}, 1, "mrconfigid", evidence.Fail},
		{"another nonce", func(e *evidence.TDX, _ *evidence.Options) { e.Nonce = []byte("stale") }, 1, "nonce", evidence.Fail},
		{"mrconfigid forged", func(e *evidence.TDX, _ *evidence.Options) { copy(e.Quote[mrConfigIDAt:], bound(text).Digest) }, 1, "signature", evidence.Fail},
		{"mrconfigid forged, seen alone", func(e *evidence.TDX, _ *evidence.Options) { copy(e.Quote[mrConfigIDAt:], bound(text).Digest) }, 1, "mrconfigid", evidence.Pass},
		{"padding byte set", func(e *evidence.TDX, _ *evidence.Options) {
			copy(e.Quote[mrConfigIDAt:], bound(text).Digest)
			e.Quote[mrConfigIDAt+47] = 1
		}, 1, "mrconfigid", evidence.Fail},
		{"debug TD", func(e *evidence.TDX, _ *evidence.Options) { e.Quote[0x30+120] |= 1 }, 1, "debug", evidence.Fail},
		{"profiled TD", func(e *evidence.TDX, _ *evidence.Options) { e.Quote[0x30+120] |= 1 << 5 }, 1, "debug", evidence.Fail},
		{"migratable TD", func(e *evidence.TDX, _ *evidence.Options) { e.Quote[0x30+123] |= 1 << 5 }, 1, "debug", evidence.Fail},
		{"debug TD allowed", func(e *evidence.TDX, o *evidence.Options) { e.Quote[0x30+120] |= 1; o.AllowDebug = true }, 1, "debug", evidence.Pass},
		{"certificates expired", func(_ *evidence.TDX, o *evidence.Options) { o.Now = quoteTime.AddDate(40, 0, 0) }, 1, "signature", evidence.Fail},
		{"cut quote", func(e *evidence.TDX, _ *evidence.Options) { e.Quote = e.Quote[:600] }, 1, "format", evidence.Fail},
		{"no quote", func(e *evidence.TDX, _ *evidence.Options) { e.Quote = nil }, 1, "format", evidence.Fail},
		{"huge quote", func(e *evidence.TDX, _ *evidence.Options) { e.Quote = make([]byte, 1<<20) }, 1, "format", evidence.Fail},
		{"version 5", func(e *evidence.TDX, _ *evidence.Options) { e.Quote[0] = 5 }, 3, "format", evidence.Unknown},
		// The library's collateral is of another platform generation: it is read, and does not know this one's TCB level.
		{"collateral that does not fit", func(_ *evidence.TDX, o *evidence.Options) { o.Fetch, o.TDXGetter = true, tdxtest.TestGetter }, 1, "collateral", evidence.Fail},
		{"launch not compared", func(*evidence.TDX, *evidence.Options) {}, 1, "measurement", evidence.Unknown},
		{"kernel not compared", func(_ *evidence.TDX, o *evidence.Options) { o.Reference = evidence.Reference{Measurements: mrtd} }, 1, "rtmr1", evidence.Unknown},
		{"command line not compared", func(_ *evidence.TDX, o *evidence.Options) { o.Reference = evidence.Reference{Measurements: mrtd} }, 1, "rtmr2", evidence.Unknown},
		{"firmware compared", func(_ *evidence.TDX, o *evidence.Options) { o.Reference = evidence.Reference{Measurements: mrtd} }, 1, "measurement", evidence.Pass},
		{"another firmware", func(_ *evidence.TDX, o *evidence.Options) {
			o.Reference = evidence.Reference{Measurements: [][]byte{make([]byte, 48)}}
		}, 1, "measurement", evidence.Fail},
		{"kernel compared", func(_ *evidence.TDX, o *evidence.Options) { o.Reference = evidence.Reference{RTMRs: rtmrs} }, 1, "rtmr1", evidence.Pass},
		{"another kernel", func(_ *evidence.TDX, o *evidence.Options) {
			o.Reference = evidence.Reference{RTMRs: map[int][][]byte{1: rtmrs[2], 2: rtmrs[2]}}
		}, 1, "rtmr1", evidence.Fail},
		{"a register more", func(_ *evidence.TDX, o *evidence.Options) {
			o.Reference = evidence.Reference{RTMRs: map[int][][]byte{3: rtmrs[2]}}
		}, 1, "rtmr3", evidence.Fail},
		{"a policy that an issuer may have updated", func(e *evidence.TDX, _ *evidence.Options) { e.Policy = []byte(oneIssuer) }, 1, "fragments", evidence.Unknown},
		{"collateral out of reach", func(_ *evidence.TDX, o *evidence.Options) { o.Fetch, o.TDXGetter = true, noNetwork{} }, 1, "collateral", evidence.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := evidence.TDX{Quote: bytes.Clone(testdata.RawQuote), Nonce: quoteNonce, Bound: bound(text)}
			o := evidence.Options{Now: quoteTime}
			tt.change(&e, &o)
			expect(t, evidence.VerifyTDX(t.Context(), e, o), tt.exit, tt.check, tt.verdict)
		})
	}
}

type noNetwork struct{}

func (noNetwork) Get(string) (map[string][]string, []byte, error) {
	return nil, nil, errors.New("no network")
}

func TestExpect(t *testing.T) {
	e, err := evidence.Expect(bound(text))
	if err != nil {
		t.Fatal(err)
	}
	d := hex.EncodeToString(bound(text).Digest)
	want := "b397f753bc3e2a7ccd2c9b320b42527466ef7e4ee468d81df03dfba9a9afccdc"
	if e.PCR["sha256"] != want || len(e.PCR["sha384"]) != 96 || len(e.PCR) != 4 {
		t.Errorf("PCR %v, want %s in sha256", e.PCR, want)
	}
	if e.HostData.Hex != d || e.MRConfigID.Hex != d+"00000000000000000000000000000000" ||
		e.HostData.Base64 != base64.StdEncoding.EncodeToString(bound(text).Digest) {
		t.Errorf("%+v", e)
	}
	sha384 := make([]byte, 48)
	sha384[47] = 0xff
	if e, err = evidence.Expect(evidence.Bound{Alg: "sha384", Digest: sha384}); err != nil || e.PCR != nil || len(e.HostData.Hex) != 64 ||
		e.MRConfigID.Hex != hex.EncodeToString(sha384) {
		t.Errorf("sha384: %+v, %v", e, err)
	}
	for _, b := range []evidence.Bound{{}, {Alg: "sha256", Digest: make([]byte, 31)}, {Alg: "sha1", Digest: make([]byte, 20)}, {Alg: "md5", Digest: make([]byte, 16)}} {
		if _, err := evidence.Expect(b); !errors.Is(err, evidence.ErrDigest) {
			t.Errorf("Expect(%s) = %v, want ErrDigest", b.Alg, err)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for verdict, want := range map[evidence.Verdict]int{evidence.Pass: 0, evidence.Fail: 1, evidence.Unknown: 3, "": 3} {
		if got := (evidence.Result{Verdict: verdict}).ExitCode(); got != want {
			t.Errorf("exit code of %q is %d, want %d", verdict, got, want)
		}
	}
}
