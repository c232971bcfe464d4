// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/internal/imagestest"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n" +
		"short:x:5:5:/:/bin/sh\n" + // six fields
		"long:x:6:6:::/:/bin/sh\n" + // eight
		"bad:x:-1:6:::\n" +
		"web:x:1000:2000:Web:/:/bin/sh\n" +
		"web:x:1001:2001:Twin:/:/bin/sh\n" +
		"42:x:7:7:a name of digits::\n"
	groups = "root:x:0:\n" +
		"wheel:x:10:root,web\n" +
		"web:x:3000:web\n" + // the user's own name
		"data:x:20:other,web\n" +
		"dup:x:20:web\n" +
		"three:x:21\n" +
		"five:x:22:web:x\n"
)

func TestUserResolution(t *testing.T) {
	a := images.ParseAccounts([]byte(passwd), []byte(groups))
	for user, want := range map[string]images.Identity{
		"":           {UID: 0, GID: 0, AdditionalGIDs: []uint32{0, 10}},
		"0":          {UID: 0, GID: 0, AdditionalGIDs: []uint32{0, 10}},
		"root":       {UID: 0, GID: 0, AdditionalGIDs: []uint32{0, 10}},
		"web":        {UID: 1000, GID: 2000, AdditionalGIDs: []uint32{10, 20, 2000}},
		"1000":       {UID: 1000, GID: 2000, AdditionalGIDs: []uint32{10, 20, 2000}},
		"web:wheel":  {UID: 1000, GID: 10, AdditionalGIDs: []uint32{10, 20}},
		"web:99":     {UID: 1000, GID: 99, AdditionalGIDs: []uint32{10, 20, 99}},
		"4711":       {UID: 4711, GID: 0, AdditionalGIDs: []uint32{0}},
		"4711:web":   {UID: 4711, GID: 3000, AdditionalGIDs: []uint32{3000}},
		"42":         {UID: 42, GID: 0, AdditionalGIDs: []uint32{0}},
		"4294967294": {UID: 4294967294, GID: 0, AdditionalGIDs: []uint32{0}},
	} {
		got, err := a.Identity(user)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("user %q: %v %s", user, err, diff)
		}
	}
	for _, user := range []string{"short", "long", "bad", "nobody", "web:", "web:three", "web:five", "-1", "+1", " 1"} {
		if got, err := a.Identity(user); !errors.Is(err, images.ErrUnknownUser) {
			t.Errorf("user %q: %+v, %v; want ErrUnknownUser", user, got, err)
		}
	}
	for _, user := range []string{"4294967295", "4294967296", "99999999999999999999", "1:4294967295"} {
		if got, err := a.Identity(user); err == nil || errors.Is(err, images.ErrUnknownUser) {
			t.Errorf("user %q: %+v, %v; want it refused as a number", user, got, err)
		}
	}
	if _, err := (*images.Accounts)(nil).Identity("web"); !errors.Is(err, images.ErrUnknownUser) {
		t.Errorf("a name without accounts: %v", err)
	}
}

// open makes an image of layers and opens it.
func open(t testing.TB, user string, layers ...[]byte) (*images.Image, *imagestest.Store) {
	t.Helper()
	s := imagestest.NewStore()
	s.Add("app", imagestest.Image{Config: images.Config{User: user}, Layers: layers})
	img, err := images.Open(t.Context(), s, ref(t, "app"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return img, s
}

func file(name, content string) imagestest.Entry {
	return imagestest.Entry{Name: name, Content: content}
}

func TestLayersMergeAsARuntimeUnpacksThem(t *testing.T) {
	base := imagestest.Tar(
		imagestest.Entry{Name: "etc/", Type: tar.TypeDir}, file("etc/passwd", "u:x:1:1:::\n"), file("etc/group", "g:x:9:u\n"),
	)
	const noUser = 0
	for name, c := range map[string]struct {
		layers [][]byte
		uid    uint32   // of "u", or noUser
		gids   []uint32 // additional
	}{
		"one layer":                  {[][]byte{base}, 1, []uint32{1, 9}},
		"last layer wins":            {[][]byte{base, imagestest.Tar(file("etc/passwd", "u:x:2:2:::\n"))}, 2, []uint32{2, 9}},
		"unrelated layer on top":     {[][]byte{base, imagestest.Tar(file("app/passwd", "u:x:2:2:::\n"))}, 1, []uint32{1, 9}},
		"dot slash":                  {[][]byte{base, imagestest.Tar(file("./etc/passwd", "u:x:2:2:::\n"))}, 2, []uint32{2, 9}},
		"leading slash, double too":  {[][]byte{base, imagestest.Tar(file("//etc/./passwd", "u:x:2:2:::\n"))}, 2, []uint32{2, 9}},
		"last entry of a layer wins": {[][]byte{imagestest.Tar(file("etc/passwd", "u:x:3:3:::\n"), file("etc/passwd", "u:x:4:4:::\n"))}, 4, []uint32{4}},
		"whiteout of passwd":         {[][]byte{base, imagestest.Tar(file("etc/.wh.passwd", ""))}, noUser, nil},
		"whiteout of group":          {[][]byte{base, imagestest.Tar(file("./etc/.wh.group", ""))}, 1, []uint32{1}},
		"whiteout of etc":            {[][]byte{base, imagestest.Tar(file(".wh.etc", ""))}, noUser, nil},
		"opaque etc":                 {[][]byte{base, imagestest.Tar(file("etc/.wh..wh..opq", ""))}, noUser, nil},
		"opaque root":                {[][]byte{base, imagestest.Tar(file(".wh..wh..opq", ""))}, noUser, nil},
		"opaque etc with a new file": {[][]byte{base, imagestest.Tar(file("etc/passwd", "u:x:5:5:::\n"), file("etc/.wh..wh..opq", ""))}, 5, []uint32{5}},
		"whiteout beside a new file": {[][]byte{base, imagestest.Tar(file("etc/.wh.passwd", ""), file("etc/passwd", "u:x:5:5:::\n"))}, 5, []uint32{5, 9}},
		"back after a whiteout":      {[][]byte{base, imagestest.Tar(file("etc/.wh.passwd", "")), imagestest.Tar(file("etc/passwd", "u:x:6:6:::\n"))}, 6, []uint32{6, 9}},
		"opaque elsewhere":           {[][]byte{base, imagestest.Tar(file("etc/ssl/.wh..wh..opq", ""))}, 1, []uint32{1, 9}},
		"no layers":                  {nil, noUser, nil},
	} {
		t.Run(name, func(t *testing.T) {
			img, _ := open(t, "u", c.layers...)
			id, err := img.Identity(t.Context(), "u", images.WhenNamed)
			if c.uid == noUser {
				if !errors.Is(err, images.ErrUnknownUser) {
					t.Errorf("got %+v, %v; want ErrUnknownUser", id, err)
				}
				return
			}
			if diff := cmp.Diff(c.gids, id.AdditionalGIDs); err != nil || id.UID != c.uid || diff != "" {
				t.Errorf("got %+v, %v; want uid %d %s", id, err, c.uid, diff)
			}
		})
	}
}

func TestLinksAndPathsThatLeadAwayAreRefused(t *testing.T) {
	base := imagestest.Tar(file("etc/passwd", "u:x:1:1:::\n"), file("etc/group", ""))
	for name, top := range map[string]imagestest.Entry{
		"passwd is a symbolic link": {Name: "etc/passwd", Type: tar.TypeSymlink, Link: "/nix/passwd"},
		"group is a hard link":      {Name: "etc/group", Type: tar.TypeLink, Link: "etc/passwd"},
		"passwd is a directory":     {Name: "etc/passwd/", Type: tar.TypeDir},
		"passwd is a device":        {Name: "etc/passwd", Type: tar.TypeChar},
		"etc is a symbolic link":    {Name: "etc", Type: tar.TypeSymlink, Link: "usr/etc"},
		"etc is a file":             {Name: "etc"},
		"path with two dots":        {Name: "x/../etc/passwd", Content: "u:x:0:0:::\n"},
		"path above the root":       {Name: "../etc/passwd", Content: "u:x:0:0:::\n"},
	} {
		t.Run(name, func(t *testing.T) {
			img, _ := open(t, "u", base, imagestest.Tar(top))
			if id, err := img.Identity(t.Context(), "u", images.WhenNamed); err == nil {
				t.Errorf("resolved to %+v", id)
			}
		})
	}
}

func TestLayersAreReadOnlyWhenNeededAndOnce(t *testing.T) {
	base := imagestest.Tar(file("etc/passwd", "u:x:1:1:::\n"), file("etc/group", "g:x:9:u\n"))
	top := imagestest.Tar(file("etc/passwd", "u:x:2:2:::\n"), file("etc/group", ""))
	img, s := open(t, "5:6", base, top)
	id, err := img.Identity(t.Context(), img.Config.User, images.WhenNamed)
	if err != nil || id.UID != 5 || id.GID != 6 {
		t.Fatalf("%+v, %v", id, err)
	}
	if id, err = img.Identity(t.Context(), "5", images.WhenNamed); err != nil || id.GID != 0 {
		t.Fatalf("%+v, %v", id, err)
	}
	for n, l := range img.Layers {
		if s.Fetched(l.Digest) != 0 {
			t.Errorf("layer %d was read for a numeric user", n)
		}
	}
	for range 3 {
		if id, err = img.Identity(t.Context(), "2", images.Always); err != nil || id.GID != 2 {
			t.Fatalf("%+v, %v", id, err)
		}
	}
	if got := []int{s.Fetched(img.Layers[0].Digest), s.Fetched(img.Layers[1].Digest)}; !cmp.Equal(got, []int{0, 1}) {
		t.Errorf("layers fetched %v times, want the top one once and nothing below it", got)
	}
}

// zeros gives n zero bytes.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

func TestBombsEndInAClearError(t *testing.T) {
	gz := func(write func(io.Writer)) []byte {
		var buf bytes.Buffer
		w, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		write(w)
		w.Close()
		return buf.Bytes()
	}
	header := func(w io.Writer, h tar.Header) {
		h.Mode, h.Format = 0o644, tar.FormatPAX
		if err := tar.NewWriter(w).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		limits images.Limits
		blob   []byte
		want   string
	}{
		"10 GB sparse layer": {images.Limits{}, gz(func(w io.Writer) {
			header(w, tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 10e9})
		}), "sum of file sizes in a layer is larger than the limit of 8589934592"},
		"layer of zeros": {images.Limits{LayerSize: 64 << 20}, gz(func(w io.Writer) {
			header(w, tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 60 << 20})
			io.Copy(w, &zeros{70 << 20})
		}), "layer after decompression is larger than the limit of 67108864"},
		"zeros after the end of the tar": {images.Limits{LayerSize: 1 << 20}, gz(func(w io.Writer) {
			io.Copy(w, &zeros{2 << 20})
		}), "layer after decompression is larger than the limit of 1048576"},
		"too many entries": {images.Limits{Entries: 10}, gz(func(w io.Writer) {
			for range 11 {
				header(w, tar.Header{Name: "x", Typeflag: tar.TypeReg})
			}
		}), "number of entries in a layer is larger than the limit of 10"},
		"huge passwd": {images.Limits{}, gz(func(w io.Writer) {
			header(w, tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Size: 2 << 20})
			io.Copy(w, &zeros{2 << 20})
		}), "/etc/passwd is larger than the limit of 1048576"},
		"blob too large": {images.Limits{Blob: 10}, gz(func(io.Writer) {}), "stored layer is larger than the limit of 10"},
	} {
		t.Run(name, func(t *testing.T) {
			s := imagestest.NewStore()
			layer := s.AddBlob(ocispec.MediaTypeImageLayerGzip, c.blob)
			config := s.AddBlob(ocispec.MediaTypeImageConfig,
				[]byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["`+digest.FromString("?").String()+`"]}}`))
			s.Name("bomb", s.AddBlob("", marshal(t, map[string]any{
				"schemaVersion": 2, "config": config, "layers": []ocispec.Descriptor{layer},
			})))
			img, err := images.Open(t.Context(), s, ref(t, "bomb"), images.Options{Limits: c.limits})
			if err == nil {
				_, err = img.Accounts(t.Context())
			}
			var limit *images.LimitError
			if !errors.As(err, &limit) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestUncompressedContentMustMatchTheDiffID(t *testing.T) {
	s := imagestest.NewStore()
	layer := s.AddBlob(ocispec.MediaTypeImageLayer, imagestest.Tar(file("etc/passwd", "u:x:1:1:::\n")))
	config := s.AddBlob(ocispec.MediaTypeImageConfig,
		[]byte(`{"rootfs":{"diff_ids":["`+digest.FromString("another tar").String()+`"]}}`))
	s.Name("app", s.AddBlob("", marshal(t, map[string]any{
		"schemaVersion": 2, "config": config, "layers": []ocispec.Descriptor{layer},
	})))
	img, err := images.Open(t.Context(), s, ref(t, "app"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wrong *images.DigestError
	if _, err := img.Accounts(t.Context()); !errors.As(err, &wrong) || wrong.Want != digest.FromString("another tar") {
		t.Errorf("got %v, want a DigestError", err)
	}
}
