// SPDX-License-Identifier: Apache-2.0

package binding

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/engine"
	"portcullis/measure"
)

// Code is a stable word for why a policy was refused or requests are denied. Tools and verifiers branch on it; the text
// beside it is for people and may change.
type Code string

// The codes. Those about reading hardware or measuring come from the packages that do it.
const (
	CodeNotSet           Code = "policy-not-set"    // no policy has been set yet in this boot
	CodeForbidden        Code = "policy-forbidden"  // the current policy's SetPolicyRequest is not true
	CodeAlreadySet       Code = "already-set"       // another policy was bound, and policy_update is never
	CodeAlreadyRunning   Code = "already-running"   // another policy has already let requests through
	CodePolicyInvalid    Code = "policy-invalid"    // not UTF-8, or it does not compile
	CodePolicyTooLarge   Code = "policy-too-large"  // over engine.MaxText
	CodePolicyWaives     Code = "policy-waives"     // AllowRequestsFailingPolicy under mode required
	CodeDigestMismatch   Code = "digest-mismatch"   // the hardware holds another digest
	CodeNoBackend        Code = "no-backend"        // mode required and nothing to bind to
	CodeFieldZero        Code = "field-zero"        // the launcher bound nothing
	CodeFieldRead        Code = "field-read-failed" // the hardware's field cannot be read
	CodeReportInvalid    Code = "report-invalid"    // the report is malformed or not an answer to our request
	CodeDebugGuest       Code = "debug-guest"       // the guest is open to its host's debugger
	CodeInitdataInvalid  Code = "initdata-invalid"  // malformed, twice there, or its device cannot be read
	CodeInitdataLocked   Code = "initdata-locked"   // initdata decides the policy, and this is another
	CodeInitdataChanged  Code = "initdata-changed"  // a copy of bound initdata differs from what was bound
	CodePCRUnexpected    Code = "pcr-unexpected"    // the register holds what nobody accounted for
	CodePCRExtend        Code = "pcr-extend-failed" // the TPM did not take the digest
	CodeTPMUntrusted     Code = "tpm-untrusted"     // the only backend is a TPM without trust set
	CodeModeRefused      Code = "mode-refused"      // mode off in a guest that shows a TEE
	CodeLogFailed        Code = "log-failed"        // the event log or the journal cannot be written
	CodeFragmentInvalid  Code = "fragment-invalid"  // not an envelope or a document in its one form
	CodeFragmentIssuer   Code = "fragment-issuer"   // no issuer of the policy has signed it
	CodeFragmentRollback Code = "fragment-rollback" // its svn is too low
	CodeFragmentCeiling  Code = "fragment-ceiling"  // it sets what its issuer may not
	CodeNotNarrower      Code = "not-narrower"      // policy_update is narrow, and the policy may allow more
	CodeStateLost        Code = "state-lost"        // policyd was restarted beside a running agent without its journal
)

// grpcCodes gives the status code of each refusal of a policy; codes that are not listed are Unavailable.
var grpcCodes = map[Code]codes.Code{
	CodeNotNarrower:      codes.PermissionDenied,
	CodeForbidden:        codes.PermissionDenied,
	CodeDigestMismatch:   codes.PermissionDenied,
	CodeInitdataLocked:   codes.PermissionDenied,
	CodeAlreadySet:       codes.FailedPrecondition,
	CodeAlreadyRunning:   codes.FailedPrecondition,
	CodeStateLost:        codes.FailedPrecondition,
	CodePolicyInvalid:    codes.InvalidArgument,
	CodePolicyTooLarge:   codes.InvalidArgument,
	CodePolicyWaives:     codes.InvalidArgument,
	CodeInitdataInvalid:  codes.InvalidArgument,
	CodeFragmentInvalid:  codes.InvalidArgument,
	CodeFragmentIssuer:   codes.PermissionDenied,
	CodeFragmentRollback: codes.PermissionDenied,
	CodeFragmentCeiling:  codes.PermissionDenied,
}

// Error is a refusal with its code. Its text begins with the code.
type Error struct {
	Code Code
	Err  error

	unchanged bool // nothing was measured
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Code, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// maxErrorText is the longest error text on the wire, in bytes.
const maxErrorText = 1024

// GRPCStatus is the status that a client of SetPolicy gets.
func (e *Error) GRPCStatus() *status.Status {
	code, ok := grpcCodes[e.Code]
	if !ok {
		code = codes.Unavailable
	}
	return status.New(code, engine.OneLine("SetPolicyRequest is refused: "+e.Error(), maxErrorText))
}

// codeOf returns the code of an Error in err's tree, "" when there is none.
func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// refuse makes an Error.
func refuse(code Code, err error) *Error { return &Error{Code: code, Err: err} }

// coded is implemented by errors of the packages that read hardware and measure: they know their reason best.
type coded interface {
	error
	Reason() string
}

// asError turns an error from a backend into an Error, with the backend's own code if it has one.
func asError(fallback Code, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var c coded
	if errors.As(err, &c) && c.Reason() != "" {
		return refuse(Code(c.Reason()), err)
	}
	return refuse(fallback, err)
}

// unmeasured turns an error of package measure into an Error. The fallback is for errors of another origin, as for asError.
func unmeasured(fallback Code, err error) *Error {
	code := Code(measure.Reason(err))
	if code == CodePCRExtend && !errors.Is(err, measure.ErrExtend) {
		return asError(fallback, err)
	}
	return refuse(code, err)
}
