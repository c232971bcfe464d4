// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"portcullis/engine"
	"portcullis/engine/fragment"
	"portcullis/hostdata/initdata"
	"portcullis/internal/bounded"
	"portcullis/measure/eventlog"
	"portcullis/measure/evidence"
	"portcullis/rules"
)

// boundText is a policy or an initdata document, and its digest.
type boundText struct {
	Kind string `json:"kind"` // policy or initdata
	Size int    `json:"size"` // bytes that the digest is over
	evidence.Bound
	policy []byte // the policy, also of an initdata document; nil if it has none
	// fragments are envelopes in an initdata document.
	fragments [][]byte
	// otherEnd is the digest of the same document with one line feed less at its end, or one more; nil for a policy.
	otherEnd []byte
	lineFeed bool // the document ends with one
}

// readBoundPolicy digests the exact bytes of a policy file, or of the policy in a manifest's annotation. What a guest would refuse is
// refused.
func readBoundPolicy(path, alg string) (boundText, error) {
	b, text, err := readAnnotated(path, alg)
	switch {
	case err == nil && b.Kind == "":
		return boundPolicy(path, text, alg)
	case err == nil && b.Kind != "policy":
		err = usageError(fmt.Errorf("the annotation of %s holds initdata, and that is what is bound: give it with --initdata", path))
	}
	return b, err
}

// readAnnotated digests what the annotation of a manifest holds. Of a file that is no manifest it returns the text, and no kind.
func readAnnotated(path, alg string) (b boundText, text []byte, err error) {
	if text, err = bounded.ReadFile(path, maxText); err != nil {
		return b, nil, err
	}
	a, found, err := annotationOf(text)
	if err != nil {
		return b, nil, &exitError{exitNo, fmt.Errorf("%s: %w", path, err)}
	}
	if found {
		b, err = a.read(path, alg)
	}
	return b, text, err
}

// boundPolicy digests a policy, which name tells people of.
func boundPolicy(name string, text []byte, alg string) (boundText, error) {
	if err := engine.CheckText(text); err != nil {
		return boundText{}, refusedText(name, err)
	}
	digest, err := eventlog.BindingDigest(alg, text)
	if err != nil {
		return boundText{}, usageError(fmt.Errorf("--alg %.20q: want sha256, sha384 or sha512", alg))
	}
	return boundText{Kind: "policy", Size: len(text), Bound: evidence.Bound{Alg: alg, Digest: digest}, policy: text}, nil
}

// readBoundInitdata digests an initdata document, as TOML, as the value of its annotation or in a manifest, with its own algorithm.
func readBoundInitdata(path string) (boundText, error) {
	b, text, err := readAnnotated(path, "sha256")
	switch {
	case err == nil && b.Kind == "":
		return initdataOf(path, text)
	case err == nil && b.Kind != "initdata":
		err = usageError(fmt.Errorf("the annotation of %s holds a policy: give it with --policy", path))
	}
	return b, err
}

// beginsAsPolicy reports whether the first line that says something is that of a Rego module.
func beginsAsPolicy(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return bytes.HasPrefix(line, []byte("package "))
		}
	}
	return false
}

// readBound digests initdata or a policy, whichever a file or a manifest's annotation holds.
func readBound(path string) (boundText, error) {
	b, text, err := readAnnotated(path, "sha256")
	if err != nil || b.Kind != "" {
		return b, err
	}
	if b, err = initdataOf(path, text); err == nil {
		return b, nil
	}
	return boundPolicy(path, text, "sha256")
}

// boundInitdata digests a document that was read with an error or without.
func boundInitdata(name string, doc *initdata.Document, err error) (boundText, error) {
	if errors.Is(err, initdata.ErrInvalid) {
		return boundText{}, refusedText(name, err)
	}
	if err != nil {
		return boundText{}, err
	}
	b := boundText{Kind: "initdata", Size: len(doc.Bytes()), Bound: evidence.Bound{Alg: string(doc.Algorithm()), Digest: doc.Digest()}}
	if policy, ok := doc.Value(initdata.PolicyKey); ok {
		b.policy = []byte(policy)
	}
	for _, line := range doc.Fragments() {
		envelope, err := fragment.FromText(line)
		if err != nil {
			return boundText{}, refusedText(name, err)
		}
		b.fragments = append(b.fragments, envelope)
	}
	other, ended := bytes.CutSuffix(doc.Bytes(), []byte("\n"))
	if b.lineFeed = ended; !ended {
		other = append(bytes.Clone(other), '\n')
	}
	b.otherEnd, err = eventlog.Sum(b.Alg, other)
	return b, err
}

// refusedText is the error of what no guest takes.
func refusedText(name string, err error) error {
	return &exitError{exitNo, fmt.Errorf("%s: a guest refuses it: %w", name, err)}
}

// digestSource is what policyctl digest is asked to digest.
type digestSource struct {
	path       string // "-" is stdin
	isInitdata bool
	alg        string // of a policy; empty: sha256
}

// read reads a policy, an initdata document, or a manifest whose annotation holds one of them. What no guest takes is refused: it is
// compiled, as a guest does. notes are what people should know.
func (s digestSource) read(ctx context.Context, stdin io.Reader) (b boundText, notes []string, err error) {
	name, text, err := readText(s.path, stdin)
	if err != nil {
		return b, nil, err
	}
	return s.of(ctx, name, text)
}

// of is what a text of that name holds, as read reads it.
func (s digestSource) of(ctx context.Context, name string, text []byte) (b boundText, notes []string, err error) {
	switch annotated, found, err := annotationOf(text); {
	case s.isInitdata && !found:
		b, err = initdataOf(name, text)
		if err != nil {
			return b, nil, err
		}
	case err != nil:
		return b, nil, &exitError{exitNo, fmt.Errorf("%s: %w", name, err)}
	case found:
		b, err = annotated.read(name, s.alg)
		if err != nil {
			return b, nil, err
		}
	default:
		if b, err = boundPolicy(name, text, s.policyAlg()); err != nil {
			return b, nil, err
		}
	}
	if s.isInitdata && b.Kind != "initdata" {
		return b, nil, usageError(errors.New("--initdata: the manifest's annotation holds a policy"))
	}
	if s.alg != "" && b.Kind == "initdata" {
		return b, nil, usageError(errors.New("--alg is for a policy; initdata names its own algorithm"))
	}
	notes, err = b.compile(ctx, name)
	return b, notes, err
}

func (s digestSource) policyAlg() string {
	return cmp.Or(s.alg, "sha256")
}

func initdataOf(name string, text []byte) (boundText, error) {
	doc, err := initdata.ParseFile(text)
	if err != nil && beginsAsPolicy(text) {
		return boundText{}, refusedText(name, errors.New("it is a policy, no initdata: leave out --initdata, or give it with --policy"))
	}
	return boundInitdata(name, doc, err)
}

// compile says whether a guest takes the policy. One with rules that this program does not hold may be for a guest that does.
func (b boundText) compile(ctx context.Context, name string) (notes []string, err error) {
	if b.policy == nil {
		return []string{"there is no policy.rego in it: a guest with Portcullis denies everything"}, nil
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return nil, err
	}
	var unheld *engine.UnheldRulesError
	_, err = compiler.Compile(ctx, b.policy)
	switch {
	case errors.As(err, &unheld):
		return []string{fmt.Sprintf("it was not compiled: rules %v are not held here, only by the guest that it is for", unheld.Digest)}, nil
	case err != nil && ctx.Err() == nil:
		return nil, refusedText(name, err)
	}
	return nil, err
}
