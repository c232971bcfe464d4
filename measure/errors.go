// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"fmt"

	"portcullis/measure/eventlog"
)

// One sentinel for each thing that can go wrong; [Reason] maps them to the stable words that go on the wire.
var (
	// ErrNoTPM: there is no TPM at the configured device.
	ErrNoTPM = errors.New("no TPM")
	// ErrBusy: another process holds the TPM, it asked to retry too often, or the caller's context ended first.
	ErrBusy = errors.New("TPM is busy")
	// ErrBank: the sha256 bank has no such PCR, or an active bank's hash is not known here.
	ErrBank = errors.New("PCR bank unusable")
	// ErrRead: the PCR could not be read.
	ErrRead = errors.New("reading the PCR failed")
	// ErrExtend: the TPM refused the extend and the PCR is as before, or its value afterwards is unknown.
	ErrExtend = errors.New("extending the PCR failed")
	// ErrPCR: the register cannot hold a binding; see [PCRError].
	ErrPCR = errors.New("PCR not allowed")
	// ErrUnexpected: the PCR's value is none that our log explains; see [UnexpectedError].
	ErrUnexpected = errors.New("unexpected PCR value")
	// ErrMeasured: another digest was measured before; see [MeasuredError].
	ErrMeasured = errors.New("already measured")
	// ErrEvent: the event cannot be measured, its digest being no SHA-256.
	ErrEvent = errors.New("event cannot be measured")
	// ErrLog: the event log cannot be read or written. Nothing was extended that the log does not hold.
	ErrLog = errors.New("event log failed")
)

// PCRError says why a register is not allowed. It is [ErrPCR].
type PCRError struct {
	PCR uint32
	Why string
}

func (e *PCRError) Error() string { return fmt.Sprintf("%v: PCR %d %s; use 8", ErrPCR, e.PCR, e.Why) }

// Unwrap returns [ErrPCR].
func (e *PCRError) Unwrap() error { return ErrPCR }

// UnexpectedError states the values that surprised. It is [ErrUnexpected].
type UnexpectedError struct {
	PCR  uint32
	Bank string
	Got  eventlog.Hex // the PCR's value in Bank
	Want eventlog.Hex // what log and configuration lead to
	Why  string
}

func (e *UnexpectedError) Error() string {
	return fmt.Sprintf("%v: PCR %d (%s) is %s, want %s: %s", ErrUnexpected, e.PCR, e.Bank, e.Got, e.Want, e.Why)
}

// Unwrap returns [ErrUnexpected].
func (e *UnexpectedError) Unwrap() error { return ErrUnexpected }

// MeasuredError names the digest that holds the register and the one that came too late. It is [ErrMeasured].
type MeasuredError struct {
	Got  eventlog.Hex // the digest to measure
	Want eventlog.Hex // the digest measured before
}

func (e *MeasuredError) Error() string {
	return fmt.Sprintf("%v: digest %s, and not %s", ErrMeasured, e.Want, e.Got)
}

// Unwrap returns [ErrMeasured].
func (e *MeasuredError) Unwrap() error { return ErrMeasured }

// Reason returns the stable reason code of an error of this package: "no-backend", "field-read-failed", "pcr-unexpected",
// "pcr-extend-failed", "already-set", "digest-mismatch" or "log-failed". An error of another origin is a
// "pcr-extend-failed", nil is "".
func Reason(err error) string {
	for _, r := range []struct {
		err  error
		code string
	}{
		{nil, ""},
		{ErrUnexpected, "pcr-unexpected"},
		{ErrMeasured, "already-set"},
		{ErrEvent, "digest-mismatch"},
		{ErrLog, "log-failed"},
		{ErrExtend, "pcr-extend-failed"},
		{ErrNoTPM, "no-backend"},
		{ErrBusy, "no-backend"},
		{ErrBank, "no-backend"},
		{ErrPCR, "no-backend"},
		{ErrRead, "field-read-failed"},
	} {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	return "pcr-extend-failed"
}

// logError adds [ErrLog].
func logError(err error) error { return fmt.Errorf("%w: %w", ErrLog, err) }

// also adds a second error, if there is one, on the same line.
func also(err, second error) error {
	if second == nil {
		return err
	}
	return fmt.Errorf("%w; %w", err, second)
}
