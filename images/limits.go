// SPDX-License-Identifier: Apache-2.0

package images

import (
	"cmp"
	"fmt"
	"io"
)

// Limits bounds what reading one image may cost. A zero field means the default.
type Limits struct {
	Manifest  int64 // bytes of one manifest or index; default 4 MiB, which registries must accept and few exceed
	Config    int64 // bytes of the configuration; default 8 MiB
	Blob      int64 // bytes of one layer as stored; default 16 GiB
	Layers    int   // layers of one image; default 512
	LayerSize int64 // bytes of one layer's tar after decompression, and of the file sizes it declares; default 8 GiB
	Entries   int   // entries of one layer's tar; default 4 million
	File      int64 // bytes of /etc/passwd or /etc/group; default 1 MiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Manifest:  cmp.Or(l.Manifest, 4<<20),
		Config:    cmp.Or(l.Config, 8<<20),
		Blob:      cmp.Or(l.Blob, 16<<30),
		Layers:    cmp.Or(l.Layers, 512),
		LayerSize: cmp.Or(l.LayerSize, 8<<30),
		Entries:   cmp.Or(l.Entries, 4_000_000),
		File:      cmp.Or(l.File, 1<<20),
	}
}

// LimitError says which bound of [Limits] an image went over.
type LimitError struct {
	What  string // what was too large, such as "layer after decompression"
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is larger than the limit of %d", e.What, e.Limit)
}

// limitReader is io.LimitReader that fails instead of ending early.
type limitReader struct {
	r    io.Reader
	left int64
	err  error
}

func newLimitReader(r io.Reader, what string, limit int64) *limitReader {
	return &limitReader{r: r, left: limit, err: &LimitError{What: what, Limit: limit}}
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, l.err
	}
	// One byte more than is left tells a stream that ends at the limit from one that goes on.
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n - 1, l.err
	}
	return n, err
}
