// SPDX-License-Identifier: Apache-2.0

package verity_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	dmverity "github.com/containerd/go-dmverity/pkg/verity"

	"portcullis/images/verity"
)

var update = flag.Bool("update", false, "rewrite testdata/veritysetup.json with what veritysetup says")

const goldenFile = "testdata/veritysetup.json"

// golden is what veritysetup made of the data that pattern gives.
type golden struct {
	Size int64  `json:"size"` // bytes of data
	Salt string `json:"salt"` // hexadecimal
	Root string `json:"root"` // hexadecimal
	Tree string `json:"tree"` // sha256 of the tree, hexadecimal
	Len  int64  `json:"tree_size"`
}

// cases are the sizes and salts of the golden file: a lone block, one hash block filled to each edge, two levels to
// their edge, three levels.
func cases() []golden {
	zero := strings.Repeat("0", 64)
	var all []golden
	for _, blocks := range []int64{1, 2, 127, 128, 129, 256, 128 * 128, 128*128 + 1, 100 << 20 / verity.BlockSize} {
		all = append(all, golden{Size: blocks * verity.BlockSize, Salt: zero})
	}
	for _, salt := range []string{"", "ab", strings.Repeat("5a", 32), strings.Repeat("c3", 256)} {
		all = append(all, golden{Size: 129 * verity.BlockSize, Salt: salt})
	}
	return all
}

// pattern is data of any length that has no two equal blocks.
type pattern struct{ at, size int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	for i := range n {
		at := p.at + int64(i)
		b[i] = byte(at) ^ byte(at/verity.BlockSize>>(8*(at&3)))
	}
	p.at += int64(n)
	return n, nil
}

// memory is an io.WriterAt that grows.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if end := int(at) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[at:], p), nil
}

// veritysetup runs the reference; without it the test is skipped, or fails where CI is set.
func veritysetup(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"veritysetup", "/usr/sbin/veritysetup", "/sbin/veritysetup"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("veritysetup is missing: install cryptsetup-bin")
	}
	t.Skip("SKIPPED: veritysetup is missing: install cryptsetup-bin")
	return ""
}

// reference formats data with veritysetup and returns the root and the hash device.
func reference(t testing.TB, data io.Reader, salt string, extra ...string) (root string, hash []byte) {
	t.Helper()
	tool, dir := veritysetup(t), t.TempDir()
	dataFile, hashFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
	f, err := os.Create(dataFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, data); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if salt == "" {
		salt = "-"
	}
	args := append([]string{"format", "--hash=sha256", "--format=1", "--data-block-size=4096", "--hash-block-size=4096",
		"--salt=" + salt}, extra...)
	out, err := exec.Command(tool, append(args, dataFile, hashFile)...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v: %s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "Root hash:")
	if hash, err = os.ReadFile(hashFile); err != nil {
		t.Fatal(err)
	}
	return strings.Fields(rest)[0], hash
}

func measure(t testing.TB, g golden, workers int) (golden, []byte) {
	t.Helper()
	salt, err := hex.DecodeString(g.Salt)
	if err != nil {
		t.Fatal(err)
	}
	var w memory
	tree, err := verity.Format(&pattern{size: g.Size}, g.Size, &w, verity.Options{Salt: salt, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	if tree.Size() != int64(len(w.b)) {
		t.Errorf("size %d: tree.Size() = %d, wrote %d", g.Size, tree.Size(), len(w.b))
	}
	sum := sha256.Sum256(w.b)
	g.Root, g.Tree, g.Len = tree.Root.String(), hex.EncodeToString(sum[:]), int64(len(w.b))
	return g, w.b
}

func TestGoldenTreesOfVeritysetup(t *testing.T) {
	if *update {
		var all []golden
		for _, g := range cases() {
			root, tree := reference(t, &pattern{size: g.Size}, g.Salt, "--no-superblock")
			sum := sha256.Sum256(tree)
			g.Root, g.Tree, g.Len = root, hex.EncodeToString(sum[:]), int64(len(tree))
			all = append(all, g)
		}
		raw, err := json.MarshalIndent(all, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(cases()) {
		t.Fatalf("%d golden trees, want %d: run with -update", len(all), len(cases()))
	}
	for _, want := range all {
		for _, workers := range []int{0, 1, 5} {
			if got, _ := measure(t, want, workers); got != want {
				t.Errorf("size %d, salt %.8s, %d workers: got %+v, want %+v", want.Size, want.Salt, workers, got, want)
			}
		}
	}
}

func TestTreesEqualVeritysetupsByteForByte(t *testing.T) {
	for _, g := range cases() {
		root, tree := reference(t, &pattern{size: g.Size}, g.Salt, "--no-superblock")
		got, mine := measure(t, g, 0)
		if got.Root != root || !bytes.Equal(mine, tree) {
			t.Errorf("size %d, salt %.8s: root %s, want %s; trees equal: %v", g.Size, g.Salt, got.Root, root, bytes.Equal(mine, tree))
		}
	}
}

func TestSuperblockEqualsVeritysetups(t *testing.T) {
	uuid := [16]byte{0x3f, 0x8e, 1, 2, 3, 4, 0x45, 6, 0x87, 8, 9, 10, 11, 12, 13, 14}
	text := fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	for _, salt := range []string{"", strings.Repeat("0", 64), strings.Repeat("c3", 256)} {
		g, mine := measure(t, golden{Size: 129 * verity.BlockSize, Salt: salt}, 0)
		raw, _ := hex.DecodeString(salt)
		block, err := verity.Tree{DataBlocks: 129, Salt: raw}.Superblock(uuid)
		if err != nil {
			t.Fatal(err)
		}
		root, want := reference(t, &pattern{size: g.Size}, salt, "--uuid="+text)
		if root != g.Root || !bytes.Equal(append(block, mine...), want) {
			t.Errorf("salt %.8s: superblock and tree differ from veritysetup's", salt)
		}
	}
	if _, err := (verity.Tree{DataBlocks: 1}).Superblock([16]byte{}); err == nil {
		t.Error("a superblock without UUID was made")
	}
}

func TestTreeEqualsGoDmveritys(t *testing.T) {
	dir, size := t.TempDir(), int64(130*verity.BlockSize)
	data, tree := filepath.Join(dir, "data"), filepath.Join(dir, "tree")
	raw, err := io.ReadAll(&pattern{size: size})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(data, raw, 0o600), os.WriteFile(tree, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	lib := dmverity.NewCryptHash("sha256", 4096, 4096, uint64(size/4096), 1, make([]byte, 32), 0, data, tree, nil)
	if err := lib.CreateOrVerifyHashTree(false); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	got, mine := measure(t, golden{Size: size, Salt: strings.Repeat("0", 64)}, 0)
	if got.Root != hex.EncodeToString(lib.RootHash()) || !bytes.Equal(mine, want) {
		t.Error("root or tree differs")
	}
}

func TestSizesThatAreNoWholeBlocksAreRefused(t *testing.T) {
	for _, size := range []int64{-4096, -1, 0, 1, 512, 4095, 4097, 8191, 129*4096 + 1} {
		var bad *verity.SizeError
		if _, err := verity.Root(&pattern{size: max(size, 0)}, size, verity.Options{}); !errors.As(err, &bad) || bad.Size != size {
			t.Errorf("size %d: %v, want a SizeError", size, err)
		}
	}
}

func TestDataThatIsNotAsLongAsSaidIsRefused(t *testing.T) {
	for _, blocks := range []int64{1, 127, 128, 300} {
		size := blocks * verity.BlockSize
		for _, real := range []int64{0, size - 1, size - 4096, size + 1, size + 4096} {
			if _, err := verity.Root(&pattern{size: real}, size, verity.Options{}); err == nil {
				t.Errorf("%d bytes said to be %d: accepted", real, size)
			}
		}
	}
}

func TestFailuresEndTheWork(t *testing.T) {
	lost := errors.New("lost")
	size := int64(1000 * verity.BlockSize)
	r := io.MultiReader(&pattern{size: size / 2}, iotest.ErrReader(lost))
	if _, err := verity.Root(r, size, verity.Options{}); !errors.Is(err, lost) {
		t.Errorf("reading: %v", err)
	}
	if _, err := verity.Format(&pattern{size: size}, size, full{lost}, verity.Options{}); !errors.Is(err, lost) {
		t.Errorf("writing: %v", err)
	}
	if _, err := verity.Root(&pattern{size: size}, size, verity.Options{Salt: make([]byte, 257)}); err == nil {
		t.Error("a salt of 257 bytes was accepted")
	}
}

type full struct{ err error }

func (f full) WriteAt([]byte, int64) (int, error) { return 0, f.err }

func TestTableLine(t *testing.T) {
	tree := verity.Tree{Root: verity.Digest{0xab}, DataBlocks: 3, Salt: make([]byte, 32)}
	want := "0 24 verity 1 /dev/a /dev/b 4096 4096 3 4 sha256 ab" + strings.Repeat("0", 62) + " " + strings.Repeat("0", 64)
	if got := tree.Table("/dev/a", "/dev/b", 4); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	tree.Salt = nil
	if got := tree.Table("/dev/a", "/dev/a", 3); !strings.HasSuffix(got, " -") {
		t.Errorf("without salt: %s", got)
	}
}

// gibibyte is 1 GiB on disk, in the page cache after the first run.
func gibibyte(b *testing.B) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "data")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(f, &pattern{size: 1 << 30}); err != nil || f.Close() != nil {
		b.Fatal(err)
	}
	return name
}

func BenchmarkGibibyte(b *testing.B) {
	data := gibibyte(b)
	tree := filepath.Join(b.TempDir(), "tree")
	b.Run("portcullis", func(b *testing.B) {
		b.SetBytes(1 << 30)
		for b.Loop() {
			r, err := os.Open(data)
			if err != nil {
				b.Fatal(err)
			}
			w, err := os.Create(tree)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := verity.Format(r, 1<<30, w, verity.Options{}); err != nil {
				b.Fatal(err)
			}
			r.Close()
			w.Close()
		}
	})
	b.Run("veritysetup", func(b *testing.B) {
		tool := veritysetup(b)
		b.SetBytes(1 << 30)
		for b.Loop() {
			out, err := exec.Command(tool, "format", "--no-superblock", "--hash=sha256", "--salt="+strings.Repeat("0", 64),
				"--data-block-size=4096", "--hash-block-size=4096", data, tree).CombinedOutput()
			if err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
	b.Run("go-dmverity", func(b *testing.B) {
		b.SetBytes(1 << 30)
		for b.Loop() {
			if err := os.WriteFile(tree, nil, 0o600); err != nil {
				b.Fatal(err)
			}
			lib := dmverity.NewCryptHash("sha256", 4096, 4096, 1<<30/4096, 1, make([]byte, 32), 0, data, tree, nil)
			if err := lib.CreateOrVerifyHashTree(false); err != nil {
				b.Fatal(err)
			}
		}
	})
}
