// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"portcullis/rules/generate"
)

// summary is what a call did, as --json prints it.
type summary struct {
	Pods     []podSummary `json:"pods"`
	Warnings []warning    `json:"warnings"`
	DryRun   bool         `json:"dry_run"`
}

type podSummary struct {
	File       string `json:"file"`
	Pod        string `json:"pod"`
	Annotation string `json:"annotation"`
	Characters int    `json:"characters"` // of the annotation's value
	Bytes      int    `json:"bytes"`      // of the policy
	SHA256     string `json:"sha256"`     // of the policy
}

type warning struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Field string `json:"field,omitempty"`
	Text  string `json:"text"`
}

func (s *summary) add(file string, p *generate.Pod, out *generate.Rendered) {
	sum := sha256.Sum256(out.Text)
	s.Pods = append(s.Pods, podSummary{file, p.Name(), out.Annotation, len(out.Value), len(out.Text), hex.EncodeToString(sum[:])})
}

// report says what was done: as JSON, or for a person at a terminal; that there was nothing to do is said wherever stderr goes.
func (j *job) report() error {
	j.done.DryRun = j.flags.dryRun
	switch {
	case j.flags.json:
		if j.done.Pods == nil {
			j.done.Pods = []podSummary{}
		}
		if j.done.Warnings == nil {
			j.done.Warnings = []warning{}
		}
		e := json.NewEncoder(j.io.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(j.done)
	case len(j.done.Pods) == 0:
		fmt.Fprintln(j.io.err, "genpolicy: note: nothing done: no pod that takes a policy")
	case j.flags.dryRun || isTerminal(j.io.err):
		fmt.Fprint(j.io.err, j.done.text(len(j.sources)))
	}
	return nil
}

// text is a line for the call, and one for each pod.
func (s *summary) text(files int) string {
	var b strings.Builder
	verb := "made"
	if s.DryRun {
		verb = "would make"
	}
	fmt.Fprintf(&b, "genpolicy: %s %s in %s\n", verb, count(len(s.Pods), "policy", "policies"), count(files, "file", "files"))
	for _, p := range s.Pods {
		fmt.Fprintf(&b, "  %s: %s: sha256 %s, %d bytes, annotation of %d characters\n", p.File, p.Pod, p.SHA256, p.Bytes, p.Characters)
	}
	return b.String()
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
