// SPDX-License-Identifier: Apache-2.0

// Package evidence is the verifier's side, outside the guest: it holds an SNP report, a TDX quote, or a TPM quote with its
// event log against the policy or initdata that is claimed to be bound.
//
// A verification is a list of named checks. A check that says no is kept apart from one that could not be made, a certificate
// being missing for instance: the first means that the evidence is wrong, the second that nobody knows.
package evidence

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Verdict is the outcome of a check or of all of them.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"    // the check was made and says no
	Unknown Verdict = "unknown" // the check could not be made
)

// The reasons of checks.
const (
	AKUnbound       = "ak-unbound"       // nothing tells whether a TPM holds the attestation key
	NotCompared     = "not-compared"     // no value was given to compare with
	Unreadable      = "unreadable"       // of a kind that cannot be read here, a later processor for instance
	EarlierUnknown  = "earlier-unknown"  // another policy ruled before, and nothing says whether it may have
	FragmentUnknown = "fragment-unknown" // a fragment updated the policy, and nothing says whether it may have
	FragmentUnseen  = "fragment-unseen"  // fragments may have updated the policy, and what would show them was not given
	FragmentExpired = "fragment-expired" // its certificates are not valid now, and nothing says when it was signed
)

// Check is one check of a verification.
type Check struct {
	Name    string  `json:"name"` // stable: "format", "signature", "nonce", "debug", "policy", ...
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"` // a stable code, [AKUnbound] for instance
	Detail  string  `json:"detail,omitempty"` // one line for people
	Got     string  `json:"got,omitempty"`    // hexadecimal, where values are compared
	Want    string  `json:"want,omitempty"`
}

// Result is a verification.
type Result struct {
	Kind    string  `json:"kind"` // "snp", "tdx" or "tpm"
	Verdict Verdict `json:"verdict"`
	Checks  []Check `json:"checks"`
	// NotChecked names what a reader might take for checked and is not: the checks that could not be made, and what there was no
	// check of. It is empty when there is nothing of the kind.
	NotChecked []string `json:"notChecked"`
	Notes      []string `json:"notes,omitempty"` // the same for people, and what else they should know
	// Pod is what the record of the pod's life says; nil when none was asked for, or none can be believed.
	Pod *PodResult `json:"pod,omitempty"`
}

// ExitCode returns 0 when every check passed, 1 when one said no, and 3 when none did but one could not be made.
func (r Result) ExitCode() int {
	switch r.Verdict {
	case Pass:
		return 0
	case Fail:
		return 1
	}
	return 3
}

// skip notes that something was not looked at, with a note for people unless that is empty.
func (r *Result) skip(name, note string) {
	r.NotChecked = append(r.NotChecked, name)
	if note != "" {
		r.Notes = append(r.Notes, note)
	}
}

// finish names in NotChecked the checks that could not be made.
func (r Result) finish() Result {
	names := []string{}
	for _, c := range r.Checks {
		if c.Verdict == Unknown {
			names = append(names, c.Name)
		}
	}
	r.NotChecked = append(names, r.NotChecked...)
	return r
}

// add appends a check. The verdict of a result without checks is unknown.
func (r *Result) add(c Check) {
	r.Checks = append(r.Checks, c)
	switch {
	case len(r.Checks) == 1:
		r.Verdict = c.Verdict
	case r.Verdict == Fail || c.Verdict == Pass:
	default:
		r.Verdict = c.Verdict
	}
}

// result adds a check that passes when err is nil and says no otherwise.
func (r *Result) result(name string, err error) {
	c := Check{Name: name, Verdict: Pass}
	if err != nil {
		c.Verdict, c.Detail = Fail, fmt.Sprintf("%.300s", err)
	}
	r.add(c)
}

// compare adds a check that two values are the same.
func (r *Result) compare(name string, got, want []byte) {
	c := Check{Name: name, Verdict: Pass, Got: hex.EncodeToString(got), Want: hex.EncodeToString(want)}
	if c.Got != c.Want {
		c.Verdict = Fail
	}
	r.add(c)
}

func (r *Result) unknown(name, detail string) {
	r.add(Check{Name: name, Verdict: Unknown, Detail: detail})
}

// closed adds the check "debug": what the host chose at the launch must give it no way to the guest's memory. open says which it
// gives, empty for none.
func (r *Result) closed(prefix, open string, o Options) {
	switch name := prefix + "debug"; {
	case open == "":
		r.result(name, nil)
	case o.AllowDebug:
		r.add(Check{Name: name, Verdict: Pass, Detail: "taken, as asked"})
		r.skip(name, open)
	default:
		r.result(name, errors.New(open))
	}
}

// nonce compares the nonce a verifier sent, zero-padded to the field's length, with the field that echoes it.
func (r *Result) nonce(field, nonce []byte) {
	switch {
	case len(nonce) == 0:
		r.unknown("nonce", "no nonce was given, the evidence may be old")
	case len(nonce) > len(field):
		r.add(Check{Name: "nonce", Verdict: Fail, Got: hex.EncodeToString(field), Want: hex.EncodeToString(nonce),
			Detail: fmt.Sprintf("the field holds %d bytes, the nonce has %d", len(field), len(nonce))})
	default:
		r.compare("nonce", field, fit(nonce, len(field)))
	}
}
