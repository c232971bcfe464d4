// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"sort"
)

// Write writes a combination's recordings, gzipped, one pod a line, the same bytes for the same pods.
func Write(name string, pods []Pod) error {
	sort.Slice(pods, func(i, j int) bool {
		if pods[i].Manifest != pods[j].Manifest {
			return pods[i].Manifest < pods[j].Manifest
		}
		return pods[i].Pod < pods[j].Pod
	})
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	for _, p := range pods {
		line, err := encode(p)
		if err != nil {
			return err
		}
		if _, err := z.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// Read reads what Write wrote.
func Read(name string) ([]Pod, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var pods []Pod
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p Pod
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		pods = append(pods, p)
	}
	return pods, lines.Err()
}
