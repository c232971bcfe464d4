// SPDX-License-Identifier: Apache-2.0

// Package policydtest builds policyd for tests.
package policydtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds policyd as it is installed, but for its version, at path.
func Build(path string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("build policyd: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "cmd/policyd")
	flags, err := os.ReadFile(filepath.Join(source, "build.flags"))
	if err != nil {
		return fmt.Errorf("build policyd: %w", err)
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -funcalign=16 -buildid=", "-o", path}, strings.Fields(string(flags))...)
	cmd := exec.Command("go", append(args, source)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build policyd: %w\n%s", err, out)
	}
	return nil
}
