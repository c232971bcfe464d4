// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"archive/tar"
	"fmt"
	"io"
	"strings"
)

// maxLayerEntries bounds the index of a layer, which is kept in memory: about 300 bytes an entry.
const maxLayerEntries = 1_000_000

// LayerRoot computes the root that tardev checks a layer against: of the layer's tar, followed by its tarfs index and
// padded to whole blocks. It reads layer, the decompressed tar, to its end, once; the caller bounds it (images.Layer.Open
// does).
//
// The index is the one that Microsoft's tar index tool of June 2023 makes, shortcomings included, since the root would
// differ otherwise: tests hold it to that tool's output. What the tool leaves out of the file system is passed to o.Left.
func LayerRoot(layer io.Reader, o Options) (Digest, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Digest{}, fmt.Errorf("computing layer root: %w", err)
	}
	b := newBuilder(o, func(int, int64, []byte) error { return nil })
	if err := appendIndex(b, layer, o.Left); err != nil {
		b.abort()
		return Digest{}, fmt.Errorf("computing layer root: %w", err)
	}
	root, err := b.finish()
	if err != nil {
		return Digest{}, fmt.Errorf("computing layer root: %w", err)
	}
	return root, nil
}

// appendIndex passes layer on to w and follows it with its index.
func appendIndex(w io.Writer, layer io.Reader, left func(about string)) error {
	if left == nil {
		left = func(string) {}
	}
	in := &tracker{r: io.TeeReader(layer, w)}
	x := newTarIndex(left)
	tr := tar.NewReader(in)
	for count := 0; ; count++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		if count >= maxLayerEntries {
			return fmt.Errorf("tar: more than %d entries", maxLayerEntries)
		}
		if err := checkEntry(h); err != nil {
			return err
		}
		// archive/tar reads headers block by block, so what it read last is the entry's own header, and the data follows.
		if err := x.add(h, rawHeader(in.last), in.n); err != nil {
			return fmt.Errorf("tar: entry %.200q: %w", h.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return x.writeTo(w, in.n)
}

// checkEntry refuses a file whose bytes are not stored as they are: tarfs maps files straight to the tar.
func checkEntry(h *tar.Header) error {
	sparse := h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	if sparse {
		return fmt.Errorf("tar: entry %.200q is a sparse file, which tarfs cannot show", h.Name)
	}
	return nil
}

// tracker counts what is read and keeps the last 512 bytes.
type tracker struct {
	r    io.Reader
	n    int64
	last [sectorSize]byte
}

func (t *tracker) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.n += int64(n)
	if n >= sectorSize {
		copy(t.last[:], p[n-sectorSize:n])
	} else if n > 0 {
		copy(t.last[:], t.last[n:])
		copy(t.last[sectorSize-n:], p[:n])
	}
	return n, err
}
