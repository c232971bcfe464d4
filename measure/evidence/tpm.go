// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"portcullis/measure/eventlog"
)

// TPM is a quote with what is needed to verify it.
type TPM struct {
	Quote     []byte // TPMS_ATTEST (tpm2_quote -m)
	Signature []byte // TPMT_SIGNATURE (tpm2_quote -s)
	AK        []byte // the attestation key: PEM, TPM2B_PUBLIC or TPMT_PUBLIC
	PCRs      []byte // the quoted values (tpm2_quote -o); needed only when the quote covers other PCRs too
	Log       []byte // the event log; nil when one measurement from zero is expected
	// Earlier are the digests that the log may hold before the last event, sha256. Nil when the verifier does not say: then another
	// policy that ruled before makes the result unknown.
	Earlier [][]byte
	// Fragments are what may have updated the policy.
	Fragments Fragments
	Nonce     []byte // the qualifying data that the verifier sent
	PCR       uint32 // the register; its sha256 bank must be in the quote
	Bound     Bound  // Alg must be "sha256"
	Key       Provenance
	Pod       *Pod   // what the record of the pod's life is held against; nil: it is not asked for. Needs Log
	PodPCR    uint32 // its register; the sha256 bank must be in the quote
}

// VerifyTPM makes, beside those of the pod's life, the checks "format", "signature", "ak", "nonce", "pcrs", "event-log" and "history" (with a log), "policy",
// and "pcrN" of the registers that the reference names.
func VerifyTPM(ctx context.Context, e TPM, o Options) Result {
	r := Result{Kind: "tpm", Verdict: Unknown}
	q, err := parseQuote(e.Quote)
	r.result("format", err)
	if err != nil {
		return r.finish()
	}
	ak, err := parseAK(e.AK)
	var h crypto.Hash
	if err == nil {
		h, err = ak.verifyQuote(e.Quote, e.Signature)
	}
	if err == nil && ak.public != nil {
		err = restricted(ak.public)
	}
	r.result("signature", err)
	if err != nil {
		return r.finish() // nothing below the signature can be believed, nor its hash be known
	}
	r.provenance(ctx, ak, e.Key, o)
	if len(e.Nonce) == 0 || len(e.Nonce) > len(q.extraData) {
		r.nonce(q.extraData, e.Nonce)
	} else {
		r.compare("nonce", q.extraData, e.Nonce)
	}
	if !r.quotedPCRs(q, e, h) {
		return r.finish()
	}
	r.register(q, e, h, o)
	if e.Pod != nil {
		r.podRegister(q, e, h, o)
	}
	r.booted(q, o.Reference)
	unused := o.Reference
	if unused.PCRs = nil; e.Key.HCL != nil {
		unused.Measurements, unused.IDKeys = nil, nil
	}
	r.ignored(unused)
	return r.finish()
}

// quotedPCRs checks that the quote covers the register, and the values that came with it. It says whether to go on.
func (r *Result) quotedPCRs(q *quoted, e TPM, h crypto.Hash) bool {
	var err error
	if at, _ := q.position(e.PCR); at < 0 {
		err = fmt.Errorf("the quote does not cover PCR %d of the sha256 bank", e.PCR)
	} else if e.PCRs != nil {
		err = q.setValues(e.PCRs, h)
	}
	r.result("pcrs", err)
	return err == nil
}

// register checks that log, register and digest belong together.
func (r *Result) register(q *quoted, e TPM, h crypto.Hash, o Options) {
	if e.Bound.Alg != "sha256" || e.Bound.check() != nil {
		r.unknown("policy", fmt.Sprintf("a PCR takes a sha256 digest, not %d bytes of %.16q", len(e.Bound.Digest), e.Bound.Alg))
		return
	}
	value, err := extendOnce("sha256", e.Bound.Digest)
	if err != nil {
		r.unknown("policy", err.Error())
		return
	}
	if e.Log == nil {
		r.holds("policy", q, e.PCR, value, h)
		return
	}
	records, replayed, err := replay(e.Log, e.PCR)
	if err != nil {
		r.result("event-log", err)
		return
	}
	r.holds("event-log", q, e.PCR, replayed, h)
	last := len(records) - 1 // the policy; behind it are the fragments that update it
	for last > 0 && records[last].Content.EventType == eventlog.Fragment {
		last--
	}
	r.history(records[:last+1], e)
	c := Check{Name: "policy", Verdict: Pass, Want: hex.EncodeToString(e.Bound.Digest), Detail: fmt.Sprintf("event %d of the log", last+1)}
	if latest := records[last].Content.Digest(); !bytes.Equal(latest, e.Bound.Digest) {
		c.Verdict, c.Detail = Fail, "the log's latest event measured another"
		c.Got = hex.EncodeToString(latest)
	}
	r.add(c)
	events, err := registerEvents(records)
	if err != nil {
		r.result("fragments", err)
		return
	}
	r.fragments("fragments", events, e.Fragments, o)
}

// podRegister checks that the quote vouches for the log's record of the pod's life, "pod-log", and judges it.
func (r *Result) podRegister(q *quoted, e TPM, h crypto.Hash, o Options) {
	records, err := eventlog.Decode(e.Log)
	var head eventlog.Hex
	if err == nil {
		_, records = eventlog.Split(records)
		for _, record := range records {
			if record.PCR == nil || *record.PCR != e.PodPCR {
				err = fmt.Errorf("event %d is not of PCR %d", record.Content.Seq, e.PodPCR)
			}
		}
	}
	if err == nil {
		head, err = eventlog.Head(records)
	}
	if at, _ := q.position(e.PodPCR); err == nil && at < 0 {
		err = fmt.Errorf("the quote does not cover PCR %d of the sha256 bank", e.PodPCR)
	}
	if err != nil {
		r.result("pod-log", err)
		return
	}
	if r.holds("pod-log", q, e.PodPCR, head, h) {
		r.podRecord(records, claim{e.Bound, e.Earlier, e.Fragments, o}, *e.Pod)
	}
}

// history judges every event before the last: what ruled before may have started containers that still run.
func (r *Result) history(records []eventlog.Record, e TPM) {
	c := Check{Name: "history", Verdict: Pass, Detail: "no other policy ruled before"}
	if len(e.Earlier) > 0 {
		c.Detail = "what ruled before is among what may have"
	}
	known := append([][]byte{e.Bound.Digest}, e.Earlier...)
	for i, record := range records[:len(records)-1] {
		digest := record.Content.Digest()
		if record.Content.EventType == eventlog.Fragment {
			continue // see Result.fragments
		}
		if slices.ContainsFunc(known, func(k []byte) bool { return bytes.Equal(k, digest) }) {
			continue
		}
		c.Got = hex.EncodeToString(digest)
		c.Verdict, c.Detail = Fail, fmt.Sprintf("event %d measured a policy that may not have ruled", i+1)
		if e.Earlier == nil {
			c.Verdict, c.Reason = Unknown, EarlierUnknown
			c.Detail = fmt.Sprintf("another policy ruled before, by event %d, and may have left containers; if it was yours give --earlier or --earlier-digest", i+1)
		}
		break
	}
	r.add(c)
}

// holds adds the check that the quote shows the register at a value, and returns whether it passes.
func (r *Result) holds(name string, q *quoted, pcr uint32, value []byte, h crypto.Hash) bool {
	c := Check{Name: name, Verdict: Pass, Want: hex.EncodeToString(value), Detail: fmt.Sprintf("PCR %d, sha256 bank", pcr)}
	holds, known := q.holds(pcr, value, h)
	switch {
	case !known:
		c.Verdict, c.Detail = Unknown, "the quote covers other PCRs too and their values were not given; give --pcrs"
	case !holds:
		c.Verdict = Fail
		if at, _ := q.position(pcr); q.values != nil {
			c.Got = hex.EncodeToString(q.values[at])
		}
	}
	r.add(c)
	return c.Verdict == Pass
}

// replay returns the log's events and the value of the register's sha256 bank after them.
func replay(log []byte, pcr uint32) ([]eventlog.Record, []byte, error) {
	records, err := eventlog.Decode(log)
	if err != nil {
		return nil, nil, err
	}
	records, _ = eventlog.Split(records) // what is in another register is not judged here
	for _, record := range records {
		if record.PCR == nil { // it would be judged, and no register vouches for it
			return nil, nil, fmt.Errorf("event %d is of a launch field, not of a register", record.Content.Seq)
		}
	}
	values, err := eventlog.Replay(records, pcr)
	if err != nil {
		return nil, nil, err
	}
	if values["sha256"] == nil {
		return nil, nil, errors.New("the log has no event of this register")
	}
	return records, values["sha256"], nil
}
