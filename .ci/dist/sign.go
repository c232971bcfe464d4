// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"aead.dev/minisign"
)

// sums writes the checksums of all files, and the signature of that list.
func (r *release) sums() error {
	files, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(r.out, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(text), f.Name())
	}
	if err := os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), list.Bytes(), 0o644); err != nil {
		return err
	}
	if r.key == "" {
		fmt.Fprintln(os.Stderr, "dist: without a key: SHA256SUMS is not signed")
		return nil
	}
	return r.sign(list.Bytes())
}

// sign signs with a key of minisign, whose own program checks it. The signature of the same list is the same bytes.
func (r *release) sign(list []byte) error {
	text, err := os.ReadFile(r.key)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	var key minisign.PrivateKey
	if minisign.IsEncrypted(text) {
		password, err := os.ReadFile(r.password)
		if err != nil {
			return fmt.Errorf("the key is encrypted: read its password: %w", err)
		}
		key, err = minisign.DecryptKey(strings.TrimRight(string(password), "\n"), text)
		if err != nil {
			return fmt.Errorf("decrypt key: %w", err)
		}
	} else if err := key.UnmarshalText(text); err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	trusted := fmt.Sprintf("portcullis %s\ttimestamp:%d\tfile:SHA256SUMS", r.version, r.time.Unix())
	signature := minisign.SignWithComments(key, list, trusted, "checksums of portcullis "+r.version)
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS.minisig"), signature, 0o644)
}
