// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"portcullis/internal/wait"
)

// Options say how Read reads. The zero value is the running guest, strictly.
type Options struct {
	System System
	// AllowDebug accepts a guest that its host may debug. Such a guest keeps no secret from its host.
	AllowDebug bool
}

// Read returns kind's field. It makes exactly one request to the TEE; call it once at start and keep the result. Every error
// stays closed and has a [Reason]: ErrNoTEE, ErrRead (also when ctx ends first), ErrReport, ErrDebug, ErrZero.
func Read(ctx context.Context, kind Kind, opts Options) (Field, error) {
	var read func() (Field, error)
	switch kind {
	case SNP:
		read = func() (Field, error) { return readSNP(opts) }
	case TDX:
		read = func() (Field, error) { return readTDX(opts) }
	default:
		return Field{}, fmt.Errorf("read field of %q: %w", kind, ErrNoTEE)
	}
	field, err := wait.Result(ctx, read)
	if err != nil {
		return Field{}, fmt.Errorf("read %s: %w", kind.field(), asRead(err))
	}
	return field, nil
}

// field returns the name of kind's field.
func (k Kind) field() string {
	if k == TDX {
		return "mrconfigid"
	}
	return "hostdata"
}

// newNonce returns fresh bytes that a report has to repeat, so that it cannot be an older one.
func newNonce() (nonce [64]byte) {
	rand.Read(nonce[:]) // never fails: crypto/rand ends the program instead
	return nonce
}

// admit refuses a field that must not be used whatever it holds.
func (o Options) admit(field Field) (Field, error) {
	if field.Debug && !o.AllowDebug {
		return Field{}, ErrDebug
	}
	if subtle.ConstantTimeCompare(field.Value, make([]byte, len(field.Value))) == 1 {
		return Field{}, ErrZero
	}
	return field, nil
}
