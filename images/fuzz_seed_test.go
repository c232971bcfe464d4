// SPDX-License-Identifier: Apache-2.0

package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// bytesStore answers every question with the same bytes.
type bytesStore []byte

func (s bytesStore) Resolve(context.Context, Reference) (Target, error) { return Target{}, ErrNotFound }

func (s bytesStore) Fetch(context.Context, Reference, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s)), nil
}

func digestOf(b []byte) digest.Digest { return digest.FromBytes(b) }

func tarOf(namesAndContents ...string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for n := 0; n < len(namesAndContents); n += 2 {
		content := namesAndContents[n+1]
		w.WriteHeader(&tar.Header{Name: namesAndContents[n], Typeflag: tar.TypeReg, Size: int64(len(content))})
		io.WriteString(w, content)
	}
	w.Close()
	return buf.Bytes()
}

func gzipOf(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func zstdOf(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}
