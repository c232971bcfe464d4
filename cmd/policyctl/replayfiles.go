// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"portcullis/engine/replay"
	"portcullis/engine/trace"
	"portcullis/internal/atomicfile"
)

// outputs are the files that replay makes of a recording, if any.
type outputs struct {
	tests *renameio.PendingFile // a temporary file until all of it is written
	out   *bufio.Writer
	dir   string
	count int
}

// open makes the directory and the temporary file. Both are for the owner alone: a recording holds secrets.
func (o *outputs) open(opts replayOptions) error {
	if opts.split != "" {
		if err := os.Mkdir(opts.split, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		o.dir = opts.split
	}
	if opts.save == "" {
		return nil
	}
	f, err := atomicfile.New(opts.save, 0o600)
	if err != nil {
		return fmt.Errorf("save tests: %w", err)
	}
	o.tests, o.out = f, bufio.NewWriter(f)
	return nil
}

// add writes one request with what was decided: then, if the record says so, else by this policy, if that is known.
func (o *outputs) add(record trace.Record, d replay.Decision) error {
	if o.tests != nil {
		if err := writeLine(o.out, testOf(record, d)); err != nil {
			return fmt.Errorf("save tests: %w", err)
		}
	}
	if record.Observed {
		return nil
	}
	o.count++
	if o.dir == "" {
		return nil
	}
	name := splitName(o.count, record)
	// O_EXCL follows no link and overwrites nothing.
	f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("split: %w", err)
	}
	out := bufio.NewWriter(f)
	err = writeLine(out, splitFile{record.Request})
	return errors.Join(err, out.Flush(), f.Close())
}

// testLine is a line of a regression file, which replay reads.
type testLine struct {
	Kind     string          `json:"kind,omitempty"`
	Observed string          `json:"observed,omitempty"`
	Case     string          `json:"case,omitempty"`
	Allowed  *bool           `json:"allowed,omitempty"`
	Agent    trace.Answer    `json:"agent,omitempty"`
	Request  json.RawMessage `json:"request"`
}

func testOf(record trace.Record, d replay.Decision) testLine {
	if record.Observed {
		return testLine{Observed: record.Kind, Request: record.Request}
	}
	line := testLine{Kind: record.Kind, Case: record.Case, Allowed: record.Allowed, Agent: record.Agent, Request: record.Request}
	if line.Allowed == nil && d.Outcome != replay.Unknown {
		allowed := d.Outcome == replay.Allowed
		line.Allowed = &allowed
	}
	return line
}

// splitFile is the body of a request to OPA's REST API.
type splitFile struct {
	Input json.RawMessage `json:"input"`
}

// splitName is a file name for a request: its place in the recording, its kind, and
// its case, of letters, digits and dashes alone.
func splitName(n int, record trace.Record) string {
	name := fmt.Sprintf("%05d-%s", n, safeName(record.Kind))
	if record.Case != "" {
		name += "-" + safeName(record.Case)
	}
	return name + ".json"
}

func safeName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, s)
	return s[:min(len(s), 80)]
}

// close puts the tests in place if all of them are written, else takes them away.
func (o *outputs) close(whole bool) error {
	if o.tests == nil {
		return nil
	}
	err := o.out.Flush()
	if err == nil && whole {
		err = atomicfile.Close(o.tests)
	} else {
		err = errors.Join(err, o.tests.Cleanup())
	}
	if err != nil {
		return fmt.Errorf("save tests: %w", err)
	}
	return nil
}
