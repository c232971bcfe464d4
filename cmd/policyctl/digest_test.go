// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"portcullis/hostdata/initdata"
)

// TestDigestOfThePeerPodSample: the sample of the peer-pod documentation (cloud-api-adaptor, docs/initdata.md) has another digest in its
// text than its annotation has, which holds a line feed more.
func TestDigestOfThePeerPodSample(t *testing.T) {
	const (
		with    = "4bebff2869bcdd3e9848"
		without = "52af3178dd7ad4bf551e629b84b45bfd1fbe1434b980120267181ae3575ea20ca9013b8eadf31d27eed7ff2552d500ef"
	)
	sample, err := os.ReadFile("testdata/peerpod/initdata.annotation")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := initdata.ParseAnnotation(string(sample))
	if err != nil {
		t.Fatal(err)
	}
	d := desk{t, t.TempDir()}
	cut := d.write("cut.toml", bytes.TrimSuffix(doc.Bytes(), []byte("\n")))
	for path, want := range map[string][2]string{
		"testdata/peerpod/initdata.annotation": {"initdata    sha384  " + with, "4557 bytes, with a line feed at the end; without it " + without},
		cut:                                    {"initdata    sha384  " + without, "4556 bytes, without a line feed at the end; with it " + with},
	} {
		out := d.policyctl(0, "digest", "--initdata", path)
		lines := strings.Split(out, "\n")
		if !strings.HasPrefix(lines[0], want[0]) || !strings.Contains(lines[1], want[1]) {
			t.Errorf("%s:\n%s\nwant %q", path, out, want)
		}
	}
}
