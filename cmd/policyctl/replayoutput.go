// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
)

// replayOutput prints decisions. Those that differ from the record come first, so all others wait until the end, as long as they
// are at most maxHeld bytes; in JSON nothing waits.
type replayOutput struct {
	out  io.Writer
	json bool

	counts     replayCounts
	mismatches []string // the first maxMismatches
	held       bytes.Buffer
	streaming  bool
	err        error
}

const (
	maxHeld       = 4 << 20
	maxMismatches = 20
)

// replayCounts are the summary.
type replayCounts struct {
	Requests   int `json:"requests"`
	Allowed    int `json:"allowed"`
	Denied     int `json:"denied"`
	Unknown    int `json:"unknown"`
	Mismatches int `json:"mismatches"`
	Broken     int `json:"broken,omitempty"`
}

// words are the decisions in text and in JSON.
var words = map[replay.Outcome][2]string{replay.Allowed: {"ALLOW", "allow"}, replay.Denied: {"DENY", "deny"}, replay.Unknown: {"UNKNOWN", "unknown"}}

// add prints one decision. With few set only what is not allowed, or decided otherwise than recorded.
func (o *replayOutput) add(record trace.Record, d replay.Decision, few bool) {
	o.counts.Requests++
	switch d.Outcome {
	case replay.Allowed:
		o.counts.Allowed++
	case replay.Denied:
		o.counts.Denied++
	case replay.Unknown:
		o.counts.Unknown++
	}
	mismatch := differs(record, d)
	if mismatch {
		o.counts.Mismatches++
	}
	if few && d.Outcome == replay.Allowed && !mismatch {
		return
	}
	if o.json {
		o.object(jsonDecision(record, d, mismatch))
		return
	}
	line := fmt.Sprintf("%s %s%s", words[d.Outcome][0], record.Kind, detail(record.Case, decisionReason(record, d)))
	if mismatch && len(o.mismatches) < maxMismatches {
		o.mismatches = append(o.mismatches, fmt.Sprintf("  line %d: %s", record.Line, line))
	}
	o.print(line)
	if mismatch {
		o.print(fmt.Sprintf("  MISMATCH: the record says allowed = %t", *record.Allowed))
	}
}

// differs says whether a decision is known, and another than the record has.
func differs(record trace.Record, d replay.Decision) bool {
	return record.Allowed != nil && d.Outcome != replay.Unknown && *record.Allowed != (d.Outcome == replay.Allowed)
}

// decisionReason says why a request is not allowed, or that the agent refused what was.
func decisionReason(record trace.Record, d replay.Decision) string {
	switch {
	case d.Outcome == replay.Unknown:
		return "not recorded: " + d.Missing
	case d.Outcome == replay.Allowed && d.Reason == "" && record.Agent == trace.Refused:
		return "but the agent refused it" + engine.OneLine(detail("", record.Error), 200)
	}
	return d.Reason
}

type decisionObject struct {
	Line     int          `json:"line"`
	Kind     string       `json:"kind"`
	Case     string       `json:"case,omitempty"`
	Decision string       `json:"decision"`
	Reason   string       `json:"reason,omitempty"`
	Missing  string       `json:"missing,omitempty"`
	Recorded *bool        `json:"recorded,omitempty"`
	Mismatch bool         `json:"mismatch,omitempty"`
	Agent    trace.Answer `json:"agent,omitempty"`
}

func jsonDecision(record trace.Record, d replay.Decision, mismatch bool) decisionObject {
	return decisionObject{
		Line: record.Line, Kind: record.Kind, Case: record.Case, Decision: words[d.Outcome][1], Reason: d.Reason, Missing: d.Missing,
		Recorded: record.Allowed, Mismatch: mismatch, Agent: record.Agent,
	}
}

func (o *replayOutput) object(v any) { o.keep(writeLine(o.out, v)) }

// print adds a line behind the mismatches.
func (o *replayOutput) print(line string) {
	if o.streaming {
		_, err := fmt.Fprintln(o.out, line)
		o.keep(err)
		return
	}
	fmt.Fprintln(&o.held, line)
	if o.held.Len() > maxHeld {
		o.keep(o.flush())
	}
}

// flush prints the mismatches so far, and what was held for them; from then on nothing waits.
func (o *replayOutput) flush() error {
	if o.streaming || o.json {
		return o.err
	}
	o.streaming = true
	if n := o.counts.Mismatches; n > 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		_, err := fmt.Fprintf(o.out, "%d of %s %s decided otherwise than recorded:\n", n, count(o.counts.Requests, "request", "requests"), verb)
		o.keep(err)
		for _, line := range o.mismatches {
			_, err := fmt.Fprintln(o.out, line)
			o.keep(err)
		}
		if more := n - len(o.mismatches); more > 0 {
			_, err := fmt.Fprintf(o.out, "  and %d more, marked below\n", more)
			o.keep(err)
		}
		_, err = fmt.Fprintln(o.out)
		o.keep(err)
	}
	_, err := o.held.WriteTo(o.out)
	o.keep(err)
	return o.err
}

func (o *replayOutput) keep(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *replayOutput) file(path string) {
	if !o.json {
		o.print(path + ":")
	}
}

func (o *replayOutput) note(text string) {
	if !o.json {
		o.print("note: " + text)
	}
}

// skip prints and counts a line that cannot be read.
func (o *replayOutput) skip(err error) {
	o.counts.Broken++
	if !o.json {
		o.print("SKIP " + engine.OneLine(err.Error(), 200))
	}
}

// summary ends the output.
func (o *replayOutput) summary() error {
	if o.json {
		o.object(o.counts)
		return o.err
	}
	if n := o.counts.Broken; n > 0 {
		o.note(count(n, "line", "lines") + " could not be read")
	}
	unknown := ""
	if o.counts.Unknown > 0 {
		unknown = fmt.Sprintf(", %d unknown", o.counts.Unknown)
	}
	o.print(fmt.Sprintf("%s: %d allowed, %d denied%s, %s", count(o.counts.Requests, "request", "requests"), o.counts.Allowed, o.counts.Denied, unknown, count(o.counts.Mismatches, "mismatch", "mismatches")))
	return o.flush()
}
