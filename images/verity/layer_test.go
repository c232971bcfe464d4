// SPDX-License-Identifier: Apache-2.0

package verity_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/images/verity"
)

// pack writes headers, with data as long as Size says, into a tar.
func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for n, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{byte('a' + n)}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tarfs reads an indexed tar as the kernel's driver would, by the description of the format alone.
type tarfs struct {
	image      []byte
	table, num uint64
}

func mount(t testing.TB, image []byte) tarfs {
	t.Helper()
	if len(image) == 0 || len(image)%4096 != 0 {
		t.Fatalf("image of %d bytes is not in whole blocks", len(image))
	}
	sb := image[len(image)-512:]
	return tarfs{image, binary.LittleEndian.Uint64(sb), binary.LittleEndian.Uint64(sb[8:])}
}

// list describes every path below the directory ino: type and mode, owner, time, flags, content or target or device.
func (fs tarfs) list(dir string, ino uint64, into map[string]string) {
	le := binary.LittleEndian
	n := fs.image[fs.table+(ino-1)*32:][:32]
	mode, size, offset := le.Uint16(n), le.Uint64(n[16:]), le.Uint64(n[24:])
	about := fmt.Sprintf("%o %d:%d @%d", mode, le.Uint32(n[4:]), le.Uint32(n[8:]), uint64(n[3])<<32|uint64(le.Uint32(n[12:])))
	if n[2] == 1 {
		about += " opaque"
	}
	switch mode & 0o170000 {
	case 0o040000:
		into[dir+"/"] = about
		for at := offset; at < offset+size; at += 32 {
			e := fs.image[at:][:32]
			name := string(fs.image[le.Uint64(e[8:]):][:le.Uint64(e[16:])])
			child := fs.image[fs.table+(le.Uint64(e)-1)*32:]
			if uint16(e[24]) != le.Uint16(child)>>12 {
				into[dir+"/"+name] = "type of entry and inode differ"
				continue
			}
			fs.list(dir+"/"+name, le.Uint64(e), into)
		}
		return
	case 0o100000, 0o120000:
		about += " " + string(fs.image[offset:][:size])
	default:
		about += fmt.Sprintf(" dev %d:%d", offset>>32, uint32(offset))
	}
	into[dir] = fmt.Sprintf("#%d %s", ino, about)
}

func dir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }

func TestIndexShowsWhatTheTarHolds(t *testing.T) {
	long := strings.Repeat("t", 100)
	layer := pack(t,
		dir("b/"), dir("./a/"), dir("a/sub/"),
		tar.Header{Name: "a/file", Typeflag: tar.TypeReg, Size: 5, Mode: 0o4755, Uid: 1, Gid: 2, ModTime: time.Unix(0x123456789, 0), Format: tar.FormatGNU},
		tar.Header{Name: "a/hard", Typeflag: tar.TypeLink, Linkname: "a/file"},
		tar.Header{Name: "a/soft", Typeflag: tar.TypeSymlink, Linkname: "file", Mode: 0o777},
		tar.Header{Name: "a/softer", Typeflag: tar.TypeSymlink, Linkname: long, Mode: 0o777},
		tar.Header{Name: "a/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "a/loop", Typeflag: tar.TypeBlock, Devmajor: 7, Devminor: 1, Mode: 0o660},
		tar.Header{Name: "a/pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "a/.wh.gone", Typeflag: tar.TypeReg},
		tar.Header{Name: "a/sub/.wh..wh..opq", Typeflag: tar.TypeReg},
		tar.Header{Name: "b/" + strings.Repeat("n", 200), Typeflag: tar.TypeReg, Size: 1000, Mode: 0o600},
		tar.Header{Name: "b/twice", Typeflag: tar.TypeReg, Size: 1, Mode: 0o600},
		tar.Header{Name: "b/twice", Typeflag: tar.TypeReg, Size: 2, Mode: 0o644},
	)
	var image bytes.Buffer
	if err := verity.IndexLayer(&image, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(image.Bytes(), layer) {
		t.Error("the tar was changed")
	}
	got := map[string]string{}
	fs := mount(t, image.Bytes())
	if fs.table != uint64(len(layer)) {
		t.Errorf("index begins at %d, the tar ends at %d", fs.table, len(layer))
	}
	fs.list("", 1, got)
	// Inodes are numbered breadth first, in the order of names: root, a, b, and then what is in a.
	want := map[string]string{
		"/": "40555 0:0 @0", "/a/": "40755 0:0 @0", "/b/": "40755 0:0 @0", "/a/sub/": "40755 0:0 @0 opaque",
		"/a/file":                        "#4 100755 1:2 @4886718345 ddddd",
		"/a/gone":                        "#5 20000 0:0 @0 dev 0:0",
		"/a/hard":                        "#4 100755 1:2 @4886718345 ddddd",
		"/a/loop":                        "#6 60660 0:0 @0 dev 7:1",
		"/a/null":                        "#7 20666 0:0 @0 dev 1:3",
		"/a/pipe":                        "#8 10600 0:0 @0 dev 0:0",
		"/a/soft":                        "#9 120777 0:0 @0 file",
		"/a/softer":                      "#10 120777 0:0 @0 " + long,
		"/b/" + strings.Repeat("n", 200): "#12 100600 0:0 @0 " + strings.Repeat("m", 1000),
		"/b/twice":                       "#13 100644 0:0 @0 oo",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if fs.num != 13 {
		t.Errorf("%d inodes, want 13", fs.num)
	}

	root, err := verity.LayerRoot(bytes.NewReader(layer), verity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	direct, err := verity.Root(bytes.NewReader(image.Bytes()), int64(image.Len()), verity.Options{})
	if err != nil || root != direct {
		t.Errorf("root of the layer %s, of its indexed image %s, %v", root, direct, err)
	}
}

func TestIndexRefusesWhatTarfsCannotShow(t *testing.T) {
	for name, layer := range map[string][]byte{
		"hard link as the root":     pack(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "./", Typeflag: tar.TypeLink, Linkname: "a"}),
		"hard link inside itself":   pack(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "a/b", Typeflag: tar.TypeLink, Linkname: "a"}),
		"no tar":                    bytes.Repeat([]byte("x"), 1024),
		"sparse file of old format": sparse(t),
	} {
		if root, err := verity.LayerRoot(bytes.NewReader(layer), verity.Options{}); err == nil {
			t.Errorf("%s: root %s", name, root)
		}
	}
}

// paths are those below the root of an indexed layer, sorted.
func paths(t testing.TB, image []byte) []string {
	found := map[string]string{}
	mount(t, image).list("", 1, found)
	delete(found, "/")
	return slices.Sorted(maps.Keys(found))
}

// sparse is a file of 10 GB, of which no byte is stored.
func sparse(t testing.TB) []byte {
	raw := pack(t, tar.Header{Name: "big", Typeflag: tar.TypeReg, Format: tar.FormatGNU})
	raw[156] = tar.TypeGNUSparse
	copy(raw[483:495], "112402762000") // realsize, octal
	copy(raw[148:156], "        ")
	sum := 0
	for _, b := range raw[:512] {
		sum += int(b)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return raw
}

func TestAnEmptyLayerHasARoot(t *testing.T) {
	var image bytes.Buffer
	if err := verity.IndexLayer(&image, bytes.NewReader(pack(t))); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	mount(t, image.Bytes()).list("", 1, got)
	if diff := cmp.Diff(map[string]string{"/": "40555 0:0 @0"}, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzLayerIndex indexes any bytes as a layer; an index that was made must be readable.
func FuzzLayerIndex(f *testing.F) {
	f.Add(pack(f))
	f.Add(pack(f, dir("a/"), tar.Header{Name: "a/f", Typeflag: tar.TypeReg, Size: 3},
		tar.Header{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("x", 120)},
		tar.Header{Name: "a/h", Typeflag: tar.TypeLink, Linkname: "a/f"}, tar.Header{Name: "a/.wh.g", Typeflag: tar.TypeReg}))
	f.Add(sparse(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var image bytes.Buffer
		if err := verity.IndexLayer(&image, bytes.NewReader(raw)); err != nil {
			return
		}
		fs, got := mount(t, image.Bytes()), map[string]string{}
		fs.list("", 1, got)
		for path, about := range got {
			if strings.Contains(about, "differ") {
				t.Fatalf("%q: %s", path, about)
			}
		}
	})
}
