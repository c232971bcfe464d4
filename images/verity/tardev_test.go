// SPDX-License-Identifier: Apache-2.0

package verity_test

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"portcullis/images/verity"
)

// vector is a layer and what the tar index tool of Microsoft's genpolicy and tardev snapshotter (June 2023) appends to it.
type vector struct {
	Layer      string
	Tar, Index []byte // zlib
	Left       bool   // the tool said that it left something out
}

func TestIndexIsTheOneThatTardevMakes(t *testing.T) {
	raw, err := os.ReadFile("testdata/tardev.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(raw, &vectors); err != nil || len(vectors) < 18 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(v.Layer, func(t *testing.T) {
			layer, want := inflate(t, v.Tar), inflate(t, v.Index)
			var got bytes.Buffer
			if err := verity.IndexLayer(&got, bytes.NewReader(layer)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), append(layer, want...)) {
				t.Errorf("%d bytes that differ from the tool's %d", got.Len(), len(layer)+len(want))
			}
			if left := leftOf(t, layer); v.Left && len(left) == 0 {
				t.Error("the tool left something out, and nothing was said")
			}
		})
	}
}

func inflate(t testing.TB, packed []byte) []byte {
	t.Helper()
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// leftOf returns what is said to be left out of a layer.
func leftOf(t testing.TB, layer []byte) []string {
	t.Helper()
	var left []string
	o := verity.Options{Workers: 1, Left: func(about string) { left = append(left, about) }}
	if _, err := verity.LayerRoot(bytes.NewReader(layer), o); err != nil {
		t.Fatal(err)
	}
	return left
}

func TestWhatTardevDoesNotShowIsSaid(t *testing.T) {
	file := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}
	}
	link := func(name, to string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	long := strings.Repeat("t", 150)
	for _, test := range []struct {
		name    string
		entries []tar.Header
		want    string // in what is said
		paths   string // that can be reached, in order
	}{
		{"a directory without an entry", []tar.Header{file("a/b")}, `"b"`, "/a"},
		{"what is in a file", []tar.Header{file("a"), file("a/b")}, `"b"`, "/a"},
		{"what came before its directory", []tar.Header{file("a/b"), dir("a/")}, "these are lost", "/a/"},
		{"a path out of the layer", []tar.Header{file("../a"), file("b")}, "leads out", "/b"},
		{"a hard link out of the layer", []tar.Header{link("a", "../b")}, "out of the layer", ""},
		{"a hard link to nothing", []tar.Header{link("a", "b")}, "no file of this layer", "/b"},
		{"a hard link to a directory", []tar.Header{dir("a/"), link("b", "a")}, "no file of this layer", "/a/"},
		{"a link with a long target", []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: long}}, "150 characters", ""},
		{"a type that tarfs does not have", []tar.Header{{Name: "a", Typeflag: tar.TypeCont}}, "type '7'", ""},
		{"nothing", []tar.Header{dir("a/"), file("a/b"), link("c", "a/b")}, "", "/a/ /a/b /c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			layer := pack(t, test.entries...)
			left := strings.Join(leftOf(t, layer), "\n")
			if test.want == "" && left != "" || !strings.Contains(left, test.want) {
				t.Errorf("said %q, want %q", left, test.want)
			}
			var image bytes.Buffer
			if err := verity.IndexLayer(&image, bytes.NewReader(layer)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(paths(t, image.Bytes()), " "); got != test.paths {
				t.Errorf("can reach %q, want %q", got, test.paths)
			}
		})
	}
}

// TestManyNamesMoveTheSuperblock: the tool counts the names twice when it looks for the end.
func TestManyNamesMoveTheSuperblock(t *testing.T) {
	var entries []tar.Header
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		entries = append(entries, tar.Header{Name: strings.Repeat(string(c), 90), Typeflag: tar.TypeReg})
	}
	layer := pack(t, entries...)
	var image bytes.Buffer
	if err := verity.IndexLayer(&image, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	n := len(entries)
	end := len(layer) + 32*(n+1) + 32*n + 2*90*n
	if want := (end+4095)/4096*4096 + 4096; image.Len() != want {
		t.Errorf("%d bytes, want %d", image.Len(), want)
	}
	if got := len(paths(t, image.Bytes())); got != n {
		t.Errorf("%d of %d files can be reached", got, n)
	}
}
