package main

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"portcullis/engine"
	"portcullis/hostdata/initdata"
	"portcullis/internal/bounded"
	"portcullis/measure/evidence"
)

// boundText is a policy or an initdata document, and its digest.
type boundText struct {
	Kind string `json:"kind"` // policy or initdata
	Size int    `json:"size"` // bytes that the digest is over
	evidence.Bound
}

// readBoundPolicy digests the exact bytes of a policy file. What a guest would refuse is refused.
func readBoundPolicy(path, alg string) (boundText, error) {
	text, err := bounded.ReadFile(path, engine.MaxText)
	if err != nil {
		return boundText{}, err
	}
	if err := engine.CheckText(text); err != nil {
		return boundText{}, &exitError{exitNo, fmt.Errorf("%s: a guest refuses it: %w", path, err)}
	}
	b := boundText{Kind: "policy", Size: len(text), Bound: evidence.Bound{Alg: alg}}
	switch alg {
	case "sha256":
		d := sha256.Sum256(text)
		b.Digest = d[:]
	case "sha384":
		d := sha512.Sum384(text)
		b.Digest = d[:]
	case "sha512":
		d := sha512.Sum512(text)
		b.Digest = d[:]
	default:
		return boundText{}, usageError(fmt.Errorf("--alg %.20q: want sha256, sha384 or sha512", alg))
	}
	return b, nil
}

// readBoundInitdata digests an initdata document, as TOML or as the value of its annotation, with its own algorithm.
func readBoundInitdata(path string) (boundText, error) {
	doc, err := initdata.ReadFile(path)
	if errors.Is(err, initdata.ErrInvalid) {
		return boundText{}, &exitError{exitNo, fmt.Errorf("%s: a guest refuses it: %w", path, err)}
	}
	if err != nil {
		return boundText{}, err
	}
	return boundText{Kind: "initdata", Size: len(doc.Bytes()),
		Bound: evidence.Bound{Alg: string(doc.Algorithm()), Digest: doc.Digest()}}, nil
}
