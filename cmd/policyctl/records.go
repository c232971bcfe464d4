// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"portcullis/engine"
	"portcullis/engine/trace"
)

// recordHooks are what a reader of records may want to know beside them. Nil fields are not called.
type recordHooks struct {
	broken    func(error) error // a line that cannot be read; nil: it is the end
	truncated *bool             // set when the last record was cut off
	// observations has answers that the policy was shown among the records.
	observations bool
}

// errNoRequest ends a verb that was given something, but no request.
var errNoRequest = errors.New("no request among them")

// eachRecord reads the requests of a recording, one at a time. A recording that holds something but no request is an error: it is
// not one.
func eachRecord(ctx context.Context, in io.Reader, hooks *recordHooks, one func(context.Context, trace.Record) error) error {
	records := trace.NewReader(in)
	records.Observations = hooks != nil && hooks.observations
	read, broken := 0, 0
	for {
		record, err := records.Next()
		var line *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			if hooks != nil && hooks.truncated != nil {
				*hooks.truncated = records.Truncated()
			}
			if others := records.PassedOver() + broken; read == 0 && others > 0 {
				return fmt.Errorf("read recording: %s, and %w; see --help for the forms that are known", count(others, "line or element", "lines or elements"), errNoRequest)
			}
			return nil
		case errors.As(err, &line) && hooks != nil && hooks.broken != nil:
			if err := hooks.broken(err); err != nil {
				return err
			}
			broken++
			continue
		case err != nil:
			return err
		}
		read++
		if err := one(ctx, record); err != nil {
			return err
		}
	}
}

// detail is the part of a line that not every record has.
func detail(name, reason string) string {
	s := ""
	if name != "" {
		s += " " + engine.OneLine(name, 200)
	}
	if reason != "" {
		s += ": " + reason
	}
	return s
}

// count is a number with its noun.
func count[N ~int | ~uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
