// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/hostdata/initdata"
)

// peerPodSample is the annotation in the peer-pod documentation, which is not part of this project.
var peerPodSample = flag.String("peerpod-sample", "", "`file` with the annotation that cloud-api-adaptor's docs/initdata.md shows")

// newlineDigest is what is printed of a document with the line feed at its end, and without.
type newlineDigest struct {
	size, sizeWithout string
	with, without     string // digests, or their beginnings
}

// A document has another digest with a line feed at its end than without: both are said. The digests are those of sha384sum.
func TestDigestSaysBothFormsOfInitdata(t *testing.T) {
	holdDigests(t, []byte("algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"policy.rego\" = \"package agent_policy\"\n"), newlineDigest{
		"86 bytes", "85 bytes",
		"a5058642b87506754bc429e4bdc8111966e8f9dcfcacca5a2e6dbd33cd4bb49923463aa7212e00df7f9066cfe91c9212",
		"2d81df95ad09c5cabbdfff51afd2d601c216da32f6de8c71bc344b9764acccd23174c7f14abd61484cfad5b27dbc9c6e",
	})
}

// TestDigestOfThePeerPodSample: the sample of the peer-pod documentation has another digest in its text than its annotation has,
// which holds a line feed more. go test ./cmd/policyctl -run PeerPodSample -args -peerpod-sample FILE
func TestDigestOfThePeerPodSample(t *testing.T) {
	if *peerPodSample == "" {
		t.Skip("SKIPPED: -peerpod-sample names no file")
	}
	sample, err := os.ReadFile(*peerPodSample)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := initdata.ParseAnnotation(string(sample))
	if err != nil {
		t.Fatal(err)
	}
	holdDigests(t, doc.Bytes(), newlineDigest{
		"4557 bytes", "4556 bytes",
		"4bebff2869bcdd3e9848",
		"52af3178dd7ad4bf551e629b84b45bfd1fbe1434b980120267181ae3575ea20ca9013b8eadf31d27eed7ff2552d500ef",
	})
}

// holdDigests holds what digest prints of a document, as text and as an annotation, and without its last line feed.
func holdDigests(t *testing.T, text []byte, want newlineDigest) {
	t.Helper()
	d := desk{t, t.TempDir()}
	doc, err := initdata.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	whole := [2]string{"initdata    sha384  " + want.with, want.size + ", with a line feed at the end; without it " + want.without}
	for path, lines := range map[string][2]string{
		d.write("whole.toml", text):                     whole,
		d.write("whole.annotation", []byte(annotation)): whole,
		d.write("cut.toml", bytes.TrimSuffix(text, []byte("\n"))): {"initdata    sha384  " + want.without,
			want.sizeWithout + ", without a line feed at the end; with it " + want.with},
	} {
		out := d.policyctl(0, "digest", "--initdata", path)
		got := strings.Split(out, "\n")
		if !strings.HasPrefix(got[0], lines[0]) || !strings.Contains(got[1], lines[1]) {
			t.Errorf("%s:\n%s\nwant %q", filepath.Base(path), out, lines)
		}
	}
}
