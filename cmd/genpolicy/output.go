// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"portcullis/internal/atomicfile"
)

// write puts the results where they belong: printed policies and changed manifests, or either of them into the file of --output.
func (j *job) write(printed string) error {
	prints := j.flags.raw || j.flags.base64
	if j.flags.output != "" && prints {
		return writeFile(j.flags.output, []byte(printed))
	}
	// Everything is rendered before anything is written.
	texts := make([][]byte, len(j.sources))
	for i, s := range j.sources {
		var err error
		if texts[i], err = s.manifest.Text(); err != nil {
			return err
		}
	}
	for i, s := range j.sources {
		switch {
		case j.flags.output != "":
			if err := writeFile(j.flags.output, texts[i]); err != nil {
				return err
			}
		case s.path != "":
			if err := writeFile(s.path, texts[i]); err != nil {
				return err
			}
		case !prints:
			if _, err := j.io.out.Write(texts[i]); err != nil {
				return fmt.Errorf("write manifest: %w", err)
			}
		}
	}
	_, err := io.WriteString(j.io.out, printed)
	return err
}

// writeFile replaces a file in one step, following links and keeping its mode.
func writeFile(path string, text []byte) error {
	mode := os.FileMode(0o644)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		if !info.Mode().IsRegular() {
			// A pipe or device is written to, not replaced.
			return os.WriteFile(path, text, mode)
		}
	}
	if err := atomicfile.Write(path, text, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
