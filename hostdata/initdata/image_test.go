// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"portcullis/hostdata"
	"portcullis/hostdata/initdata"
	"portcullis/internal/hostdatatest"
)

func image(t testing.TB, doc *initdata.Document) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := doc.WriteImage(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The images were made by the shell.
func TestReadImageOfOtherTools(t *testing.T) {
	for _, name := range golden(t) {
		doc, err := initdata.ReadImage(bytes.NewReader(readFile(t, name+".img")))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(doc.Bytes(), readFile(t, name+".toml")) {
			t.Errorf("%s: other bytes", name)
		}
	}
}

func TestImageRoundTrip(t *testing.T) {
	// Documents of many lengths, so that the padding is of many lengths.
	for i := 0; i < 600; i += 7 {
		text := make([]byte, i)
		for j := range text {
			text[j] = 'a' + byte((j*j*7+i*13+j)%26)
		}
		doc, err := initdata.New(initdata.SHA256, map[string]string{"a": string(text)})
		if err != nil {
			t.Fatal(err)
		}
		img := image(t, doc)
		if len(img)%512 != 0 {
			t.Fatalf("image of %d bytes", len(img))
		}
		got, err := initdata.ReadImage(iotest.OneByteReader(bytes.NewReader(img)))
		if err != nil || !bytes.Equal(got.Bytes(), doc.Bytes()) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
}

func rawImage(payload []byte, length uint64, total int) []byte {
	img := binary.LittleEndian.AppendUint64([]byte("initdata"), length)
	img = append(img, payload...)
	return append(img, make([]byte, max(0, total-len(img)))...)
}

func TestReadImageRefuses(t *testing.T) {
	gz := compress(t, []byte(header+"[data]\n"))
	n := uint64(len(gz))
	good := rawImage(gz, n, 512)
	if _, err := initdata.ReadImage(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	bomb := compress(t, make([]byte, 2*initdata.MaxDocument))
	other := compress(t, []byte("x"))
	tests := []struct {
		name string
		img  []byte
		want error
	}{
		{"empty", nil, initdata.ErrNoDisk},
		{"shorter than the magic", []byte("initd"), initdata.ErrNoDisk},
		{"zeros", make([]byte, 4096), initdata.ErrNoDisk},
		{"magic in capitals", append([]byte("INITDATA"), good[8:]...), initdata.ErrNoDisk},
		{"magic later", append(make([]byte, 512), good...), initdata.ErrNoDisk},
		{"magic alone", []byte("initdata"), initdata.ErrInvalid},
		{"ends in the length", good[:12], initdata.ErrInvalid},
		{"length 0", rawImage(gz, 0, 512), initdata.ErrInvalid},
		{"length too short", rawImage(gz, n-1, 512), initdata.ErrInvalid},
		{"length too long", rawImage(gz, n+1, 512), initdata.ErrInvalid},
		{"length big-endian", rawImage(gz, n<<56, 512), initdata.ErrInvalid},
		{"length beyond the bound", rawImage(gz, 1<<20+1, 2<<20), initdata.ErrInvalid},
		{"length of all ones", rawImage(gz, 1<<64-1, 512), initdata.ErrInvalid},
		{"ends in the data", good[:16+len(gz)/2], initdata.ErrInvalid},
		{"ends in the padding", good[:511], initdata.ErrInvalid},
		{"first padding byte", with(good, 16+len(gz)), initdata.ErrInvalid},
		{"last padding byte", with(good, 511), initdata.ErrInvalid},
		{"bomb", rawImage(bomb, uint64(len(bomb)), 1<<20), initdata.ErrInvalid},
		{"second member", rawImage(append(slices.Clone(gz), gz...), 2*n, 512), initdata.ErrInvalid},
		{"not initdata", rawImage(other, uint64(len(other)), 512), initdata.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := initdata.ReadImage(bytes.NewReader(tt.img))
			if doc != nil || !errors.Is(err, tt.want) || hostdata.Reason(err) != "initdata-invalid" {
				t.Errorf("document %v, error %v, want %v", doc, err, tt.want)
			}
		})
	}
	for _, at := range []int{0, 8, 20, 300} {
		r := io.MultiReader(bytes.NewReader(good[:at]), iotest.ErrReader(syscall.EIO))
		if _, err := initdata.ReadImage(r); !errors.Is(err, initdata.ErrRead) || !errors.Is(err, syscall.EIO) {
			t.Errorf("read error at %d: %v", at, err)
		}
	}
}

func with(data []byte, index int) []byte {
	data = slices.Clone(data)
	data[index] ^= 1
	return data
}

func disks(t *testing.T, list ...hostdatatest.Disk) initdata.Disks {
	t.Helper()
	d, err := hostdatatest.Disks(t.TempDir(), list...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFind(t *testing.T) {
	good := image(t, mustParse(t, header+"[data]\n"))
	other := make([]byte, 4096)
	type disk = hostdatatest.Disk
	tests := []struct {
		name  string
		disks []disk
		want  string
		err   error
	}{
		{"virtio", []disk{{Name: "vda", Contents: other}, {Name: "vdb", Contents: good}}, "vdb", nil},
		{"SCSI", []disk{{Name: "sda", Contents: good}}, "sda", nil},
		{"many disks", []disk{{Name: "vdaa", Contents: good}, {Name: "vdb", Contents: other}}, "vdaa", nil},
		{"empty disk beside", []disk{{Name: "vda"}, {Name: "vdb", Contents: good}}, "vdb", nil},
		{"a part of a disk", []disk{{Name: "vda", Contents: other}, {Name: "vda1", Contents: good}}, "", initdata.ErrInvalid},
		{"a part of a disk beside", []disk{{Name: "vda", Contents: good}, {Name: "sdb2", Contents: good}}, "", initdata.ErrInvalid},
		{"parts of data", []disk{{Name: "vda", Contents: good}, {Name: "vdb", Contents: other}, {Name: "vdb1", Contents: other}}, "vda", nil},
		{"other devices are no disks", []disk{{Name: "vport0", Contents: good}, {Name: "sdx-not", Contents: good}}, "", initdata.ErrNoDisk},
		{"none", nil, "", initdata.ErrNoDisk},
		{"none of them", []disk{{Name: "vda", Contents: other}}, "", initdata.ErrNoDisk},
		{"two", []disk{{Name: "sda", Contents: good}, {Name: "vda", Contents: good}}, "", initdata.ErrInvalid},
		{"good and damaged", []disk{{Name: "vda", Contents: good}, {Name: "vdb", Contents: with(good, 40)}}, "", initdata.ErrInvalid},
		{"damaged", []disk{{Name: "vda", Contents: with(good, 40)}}, "", initdata.ErrInvalid},
		{"read error", []disk{{Name: "vda", Contents: good[:20], ReadErr: syscall.EIO}}, "", initdata.ErrRead},
		{"read error on another", []disk{{Name: "vda", ReadErr: syscall.EIO}, {Name: "vdb", Contents: good}}, "", initdata.ErrRead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := disks(t, tt.disks...).Find(t.Context())
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				if hostdata.Reason(err) != "initdata-invalid" {
					t.Errorf("reason %q", hostdata.Reason(err))
				}
				return
			}
			if found.Name != tt.want || string(found.Document.Bytes()) != header+"[data]\n" {
				t.Errorf("found %+v", found)
			}
		})
	}
}

func TestFindFailures(t *testing.T) {
	good := image(t, mustParse(t, header+"[data]\n"))
	t.Run("no /dev", func(t *testing.T) {
		if _, err := (initdata.Disks{Root: t.TempDir()}).Find(t.Context()); !errors.Is(err, initdata.ErrRead) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a regular file is no disk", func(t *testing.T) {
		d := disks(t, hostdatatest.Disk{Name: "vda", Contents: good})
		d.Open = nil
		if _, err := d.Find(t.Context()); !errors.Is(err, initdata.ErrRead) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a link to a disk is no disk", func(t *testing.T) {
		d := disks(t)
		d.Open = nil
		if err := os.Symlink("/dev/null", filepath.Join(d.Root, "dev/vda")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Find(t.Context()); !errors.Is(err, initdata.ErrRead) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a disk that never answers", func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		d := disks(t, hostdatatest.Disk{Name: "vda", Contents: good, Hang: hang})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := d.Find(ctx); !errors.Is(err, initdata.ErrRead) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestDetach(t *testing.T) {
	good := image(t, mustParse(t, header+"[data]\n"))
	for _, name := range []string{"vda", "sda"} {
		d := disks(t, hostdatatest.Disk{Name: "vdz"}, hostdatatest.Disk{Name: name, Contents: good})
		if err := d.Detach(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Find(t.Context()); !errors.Is(err, initdata.ErrNoDisk) {
			t.Errorf("%s is still found: %v", name, err)
		}
		if err := d.Detach(t.Context(), name); !errors.Is(err, initdata.ErrAttached) {
			t.Errorf("%s was detached twice: %v", name, err)
		}
	}
}

func TestDetachFailures(t *testing.T) {
	stuck := disks(t, hostdatatest.Disk{Name: "vda", Stuck: true})
	if err := stuck.Detach(t.Context(), "vda"); !errors.Is(err, initdata.ErrAttached) || hostdata.Reason(err) != "initdata-invalid" {
		t.Errorf("driver keeps it: %v", err)
	}
	refused := disks(t, hostdatatest.Disk{Name: "vda"})
	refused.Write = func(string, string) error { return syscall.EBUSY }
	if err := refused.Detach(t.Context(), "vda"); !errors.Is(err, initdata.ErrAttached) || !errors.Is(err, syscall.EBUSY) {
		t.Errorf("driver refuses: %v", err)
	}
	hang := make(chan struct{})
	defer close(hang)
	refused.Write = func(string, string) error { <-hang; return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := refused.Detach(ctx, "vda"); !errors.Is(err, initdata.ErrAttached) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("driver hangs: %v", err)
	}
	for _, name := range []string{"", "..", "vda1", "../vda", "vda/..", "nvme0n1"} {
		if err := refused.Detach(t.Context(), name); !errors.Is(err, initdata.ErrAttached) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Without a Write of its own the name goes into the driver's file.
func TestDetachWritesTheBusAddress(t *testing.T) {
	d := disks(t, hostdatatest.Disk{Name: "sda"})
	d.Write = nil
	err := d.Detach(t.Context(), "sda") // a plain file unbinds nothing
	if !errors.Is(err, initdata.ErrAttached) {
		t.Errorf("error %v", err)
	}
	got := readFile(t, filepath.Join(d.Root, "sys/block/sda/device/driver/unbind"))
	if string(got) != "0:0:0:0" {
		t.Errorf("wrote %q", got)
	}
}
