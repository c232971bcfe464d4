// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// condition is a sentinel error with the stable word that goes to the caller of
// SetPolicy, into the status and into the event log.
type condition struct{ reason, text string }

func (c *condition) Error() string  { return c.text }
func (c *condition) Reason() string { return c.reason }

// The conditions that a caller tells apart. All of them mean: stay closed.
var (
	// ErrNoTEE is returned by Read when it is asked for a field of no TEE.
	ErrNoTEE error = &condition{"no-backend", "no TEE to read from"}
	// ErrTwoTEEs is returned when the guest shows signs of SNP and of TDX.
	ErrTwoTEEs error = &condition{"no-backend", "signs of two TEEs at once"}
	// ErrRead is returned when a sign of a TEE or the field could not be read, including when time ran out.
	ErrRead error = &condition{"field-read-failed", "field could not be read"}
	// ErrReport is returned when what the TEE answered is not the report asked for.
	ErrReport error = &condition{"report-invalid", "report is invalid"}
	// ErrDebug is returned for a guest that its host may debug, or migrate by an
	// agent that it chose, which means read and write its memory.
	ErrDebug error = &condition{"debug-guest", "guest may be debugged or migrated by its host"}
	// ErrZero is returned when the field is all zero: the launcher bound nothing.
	ErrZero error = &condition{"field-zero", "field is all zero, nothing was bound at launch"}
)

// MismatchError says that the digest is not the one bound to the guest.
type MismatchError struct {
	Field string // "hostdata" or "mrconfigid"
	Got   []byte // the value in the field
	Want  []byte // the digest, fitted to the field's length
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is %s, the digest needs %s", e.Field, hex.EncodeToString(e.Got), hex.EncodeToString(e.Want))
}

// Reason returns "digest-mismatch".
func (e *MismatchError) Reason() string { return "digest-mismatch" }

// Reason returns the stable word for why err keeps the guest closed, of the first error in err's tree that has one, or "" when
// none has. It serves the errors of this package, of hostdata/initdata, and any other with a Reason method.
func Reason(err error) string {
	var r interface{ Reason() string }
	if errors.As(err, &r) {
		return r.Reason()
	}
	return ""
}
