// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"portcullis/hostdata/initdata"
)

// What the host made is refused by its size before it is in memory: a long compressed part, and one that unpacks to more.
func TestNothingLargeIsReadOrUnpacked(t *testing.T) {
	document := "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"aa.toml\" = '''" + strings.Repeat("x", 2<<20) + "'''\n"
	// Stored, not deflated: the document is good, and longer than what may be read.
	long := compressed(t, gzip.NoCompression, strings.NewReader(document))
	bomb := compressed(t, gzip.BestSpeed, io.LimitReader(zeros{}, 96<<20))
	for name, payload := range map[string][]byte{"long": long, "bomb": bomb} {
		image := binary.LittleEndian.AppendUint64([]byte("initdata"), uint64(len(payload)))
		image = append(append(image, payload...), make([]byte, 512)...)
		image = image[:len(image)-len(image)%512]
		before := allocated()
		if _, err := initdata.ReadImage(bytes.NewReader(image)); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: as an image: %v", name, err)
		}
		if _, err := initdata.ParseAnnotation(base64.StdEncoding.EncodeToString(payload)); !errors.Is(err, initdata.ErrInvalid) {
			t.Errorf("%s: as an annotation: %v", name, err)
		}
		if used := allocated() - before; used > 80<<20 {
			t.Errorf("%s: %d MiB were allocated for it", name, used>>20)
		}
	}
}

func compressed(t *testing.T, level int, r io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, level)
	if err == nil {
		_, err = io.Copy(zw, r)
	}
	if err := errors.Join(err, zw.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// allocated is what the process has allocated so far, in bytes, freed or not.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
