// SPDX-License-Identifier: Apache-2.0

package squeeze

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"portcullis/rules"
)

// unpack reads what must be one gzip member, with nothing behind it.
func unpack(tb testing.TB, packed []byte) []byte {
	tb.Helper()
	in := bytes.NewReader(packed)
	member, err := gzip.NewReader(in)
	if err != nil {
		tb.Fatal(err)
	}
	member.Multistream(false)
	text, err := io.ReadAll(member)
	if err != nil || in.Len() > 0 {
		tb.Fatalf("%v, %d bytes behind it", err, in.Len())
	}
	if !member.ModTime.IsZero() || member.Name != "" || member.Comment != "" || member.Extra != nil {
		tb.Fatalf("the header is %+v", member.Header)
	}
	return text
}

// texts are such as deflate has corners for.
func texts() map[string][]byte {
	noise := make([]byte, 100_000)
	for r, i := rand.New(rand.NewPCG(1, 2)), 0; i < len(noise); i++ {
		noise[i] = byte(r.Uint32())
	}
	far := append(append([]byte("that lies a window behind"), noise[:window-len("that lies a window behind")]...), "that lies a window behind"...)
	return map[string][]byte{
		"nothing": nil, "one": []byte("a"), "three": []byte("aaa"), "a run": bytes.Repeat([]byte("a"), 100_000),
		"noise": noise, "far": far, "rules": []byte(rules.Text()), "all lengths": lengthsOf(noise),
		"two kinds": append(bytes.Repeat([]byte("some words "), 400), noise[:4000]...),
	}
}

// lengthsOf has a copy of every length, and beyond.
func lengthsOf(noise []byte) []byte {
	var all []byte
	for n := range longest + 3 {
		all = append(all, noise[:n]...)
		all = append(all, noise[1000+n])
	}
	return all
}

func TestGzipIsReadAsWhatItWas(t *testing.T) {
	for name, text := range texts() {
		if read := unpack(t, Gzip(text)); !bytes.Equal(read, text) {
			t.Errorf("%s: %d bytes, another text", name, len(read))
		}
	}
}

func FuzzGzip(f *testing.F) {
	for _, text := range texts() {
		f.Add(text[:min(len(text), 2000)])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if read := unpack(t, Gzip(text)); !bytes.Equal(read, text) {
			t.Error("another text")
		}
	})
}

func TestGzipIsSmallAndSoon(t *testing.T) {
	text := []byte(rules.Text())
	start := time.Now()
	size, took := len(Gzip(text)), time.Since(start)
	var usual bytes.Buffer
	w, _ := gzip.NewWriterLevel(&usual, gzip.BestCompression)
	w.Write(text)
	w.Close()
	t.Logf("%d bytes in %s, by gzip %d", size, took, usual.Len())
	if size > usual.Len()*98/100 {
		t.Errorf("%d bytes, by gzip %d", size, usual.Len())
	}
	if took > 5*time.Second { // on an idle machine 40 ms
		t.Errorf("it takes %s", took)
	}
}

// The bytes are promised on every machine: a change of the compressor or of the module it writes with is seen here.
func TestGzipIsTheSameEverywhere(t *testing.T) {
	text := strings.Repeat("allow { input.container == data.container }\n", 3) + strings.Repeat("deny { not allow; input.id != \"\" }\n", 3)
	const want = "fd3c3010aec95e98ad9482a51c42c5a2c9a0c8534b1a544c795d23b9bbd89c7e"
	if got := fmt.Sprintf("%x", sha256.Sum256(Gzip([]byte(text)))); got != want {
		t.Errorf("%s", got)
	}
}

func TestLog2(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: bit, 3: 405, 1 << 31: 31 * bit, 1<<32 - 1: 32*bit - 1} {
		if got := log2(n); got != want {
			t.Errorf("of %d: %d, want %d", n, got, want)
		}
	}
}
