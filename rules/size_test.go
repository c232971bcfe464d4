// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"bytes"

	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/klauspost/compress/gzip"

	"portcullis/rules"
)

// The annotation of a usual pod, base64(gzip(initdata)), must leave room for
// everything else in the 256 KiB that Kubernetes allows for all annotations.
func TestAnnotationIsSmall(t *testing.T) {
	p := onePod(t)
	web := p.Containers["web"] // with a digest that does not compress
	web.Image.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("image")))
	web.Image.Source = "registry.example/web@" + web.Image.Digest
	web.OCI.Annotations.ImageName = web.Image.Source
	full, err := p.Full(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	compact, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		form  string
		text  []byte
		limit int
	}{{"full", full, 14500}, {"compact", compact, 4300}} {
		size := len(annotation(t, test.text))
		t.Logf("%s: %d characters", test.form, size)
		if size >= test.limit {
			t.Errorf("%s: %d characters, want under %d", test.form, size, test.limit)
		}
	}
}

func annotation(t *testing.T, policy []byte) string {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(w, "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"policy.rego\" = '''\n%s'''\n", policy)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes())
}
