package initdata

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// ReadFile reads a document from the regular file at path, as TOML or in the form
// of the annotation (peer pods), which holds no quote where TOML must have one.
// One line end behind the annotation form is allowed. A symbolic link is ErrRead.
func ReadFile(path string) (*Document, error) {
	text, err := readRegular(path, MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("read initdata: %w: %w", ErrRead, err)
	}
	if bytes.ContainsAny(text, `"'`) {
		return Parse(text)
	}
	return ParseAnnotation(string(bytes.TrimSuffix(text, []byte("\n"))))
}

// readRegular returns the bytes of a regular file that has at most max.
func readRegular(path string, max int64) ([]byte, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, after) {
		return nil, fmt.Errorf("%s was replaced", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > max {
		return nil, fmt.Errorf("%s has more than %d bytes", path, max)
	}
	return text, nil
}
