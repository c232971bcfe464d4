// SPDX-License-Identifier: Apache-2.0

package bounded_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"portcullis/internal/bounded"
)

func TestOneByteOverTheLimitIsTooLong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(limit int64) ([]byte, error){
		"ReadAll":     func(limit int64) ([]byte, error) { return bounded.ReadAll(strings.NewReader("12345"), limit) },
		"ReadFile":    func(limit int64) ([]byte, error) { return bounded.ReadFile(file, limit) },
		"ReadRegular": func(limit int64) ([]byte, error) { return bounded.ReadRegular(file, limit) },
	} {
		if data, err := read(5); err != nil || string(data) != "12345" {
			t.Errorf("%s(5) = %q, %v", name, data, err)
		}
		data, err := read(4)
		if !errors.Is(err, bounded.ErrTooLong) || data != nil {
			t.Errorf("%s(4) = %q, %v", name, data, err)
		}
		if name != "ReadAll" && err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%s does not name the file: %v", name, err)
		}
	}
}

func TestAReadErrorIsNoEnd(t *testing.T) {
	broken := errors.New("broken")
	if data, err := bounded.ReadAll(iotest.ErrReader(broken), 5); !errors.Is(err, broken) || data != nil {
		t.Errorf("ReadAll = %q, %v", data, err)
	}
}

func TestReadRegularReadsNothingElse(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, pipe, "/dev/null"} {
		if _, err := bounded.ReadRegular(path, 5); !errors.Is(err, bounded.ErrNotRegular) {
			t.Errorf("ReadRegular(%s): %v", path, err)
		}
	}
	if _, err := bounded.ReadRegular(filepath.Join(dir, "absent"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an absent file: %v", err)
	}
}
