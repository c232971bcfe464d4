// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is one layer of an image, unread.
type Layer struct {
	Digest    digest.Digest // of the blob as stored
	DiffID    digest.Digest // of the tar within
	MediaType string
	Size      int64 // bytes of the blob as stored

	descriptor ocispec.Descriptor
	store      Store
	ref        Reference
	limits     Limits
}

// DigestError says that content is not what its digest names.
type DigestError struct {
	What      string // "manifest", "config", "layer", "layer's tar"
	Got, Want digest.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s has digest %s, want %s", e.What, e.Got, e.Want)
}

// Open streams the layer's tar, decompressed. Blob and tar are checked as they pass by: what was read may be used once
// Read has returned io.EOF, and not before, because a mismatch shows only there. Size and digest are both checked.
func (l *Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	if strings.Contains(l.MediaType, "+encrypted") {
		return nil, fmt.Errorf("opening layer %s: it is encrypted (%s)", l.Digest, l.MediaType)
	}
	blob, err := l.store.Fetch(ctx, l.ref, l.descriptor)
	if err != nil {
		return nil, fmt.Errorf("opening layer %s: %w", l.Digest, err)
	}
	stored := newVerifier(newLimitReader(blob, "stored layer", l.limits.Blob), "layer", l.descriptor)
	plain, err := decompress(stored)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening layer %s: %w", l.Digest, err), blob.Close())
	}
	limited := newLimitReader(plain, "layer after decompression", l.limits.LayerSize)
	return &layerReader{
		tar:    newVerifier(limited, "layer's tar", ocispec.Descriptor{Digest: l.DiffID}),
		plain:  plain,
		stored: stored,
		blob:   blob,
	}, nil
}

// layerReader reads the tar and, at its end, the rest of the blob, so that both digests are known.
type layerReader struct {
	tar    io.Reader
	plain  io.ReadCloser
	stored io.Reader
	blob   io.Closer
}

func (r *layerReader) Read(p []byte) (int, error) {
	n, err := r.tar.Read(p)
	if err != io.EOF {
		return n, err
	}
	// A decompressor may stop before the end of its input.
	if _, err := io.Copy(io.Discard, r.stored); err != nil {
		return n, err
	}
	return n, io.EOF
}

func (r *layerReader) Close() error {
	return errors.Join(r.plain.Close(), r.blob.Close())
}

// maxZstdWindow is the window that a zstd decoder must support at least (RFC 8878, section 3.1.1.1.2, recommends 8 MiB),
// times sixteen for archives made with long windows.
const maxZstdWindow = 128 << 20

// decompress looks at the first bytes, not at the media type: tools write wrong ones, and the digests decide anyway.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// verifier passes content on and compares it with its descriptor when it ends.
type verifier struct {
	r        io.Reader
	what     string
	want     ocispec.Descriptor
	size     int64
	digester digest.Digester
}

// newVerifier checks r against d's digest and, unless it is 0, its size. r is bounded by the caller.
func newVerifier(r io.Reader, what string, d ocispec.Descriptor) *verifier {
	return &verifier{r: r, what: what, want: d, digester: digest.SHA256.Digester()}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.size += int64(n)
	v.digester.Hash().Write(p[:n])
	if v.want.Size > 0 && v.size > v.want.Size {
		return n, fmt.Errorf("%s %s: longer than the %d bytes it should have", v.what, v.want.Digest, v.want.Size)
	}
	if err != io.EOF {
		return n, err
	}
	if got := v.digester.Digest(); got != v.want.Digest {
		return n, &DigestError{What: v.what, Got: got, Want: v.want.Digest}
	}
	return n, io.EOF
}
