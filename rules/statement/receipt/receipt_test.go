// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"portcullis/rules/statement/receipt"
)

// books is a log of the Go checksum database's make, another implementation of RFC 6962.
type books struct {
	t      *testing.T
	signer note.Signer
	key    string
	hashes []tlog.Hash
	size   int64
}

func newLog(t *testing.T, name string, leaves ...[]byte) *books {
	t.Helper()
	secret, key, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	b := &books{t: t, signer: signer, key: key}
	for _, leaf := range leaves {
		stored, err := tlog.StoredHashes(b.size, leaf, tlog.HashReaderFunc(b.read))
		if err != nil {
			t.Fatal(err)
		}
		b.hashes = append(b.hashes, stored...)
		b.size++
	}
	return b
}

func (b *books) read(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = b.hashes[at]
	}
	return out, nil
}

// receipt is that of one leaf.
func (b *books) receipt(index int64) []byte {
	b.t.Helper()
	root, err := tlog.TreeHash(b.size, tlog.HashReaderFunc(b.read))
	if err != nil {
		b.t.Fatal(err)
	}
	path, err := tlog.ProveRecord(b.size, index, tlog.HashReaderFunc(b.read))
	if err != nil {
		b.t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", b.signer.Name(), b.size, root)}, b.signer)
	if err != nil {
		b.t.Fatal(err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "c2sp.org/tlog-proof@v1\nindex %d\n", index)
	for _, h := range path {
		fmt.Fprintln(&out, base64.StdEncoding.EncodeToString(h[:]))
	}
	fmt.Fprintf(&out, "\n%s", signed)
	return out.Bytes()
}

func leaves(n int) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, fmt.Appendf(nil, "bundle %d", i))
	}
	return out
}

func TestEachLeafOfALogHasItsReceipt(t *testing.T) {
	for size := 1; size <= 20; size++ {
		log := newLog(t, "log.example/policies", leaves(size)...)
		for i, leaf := range leaves(size) {
			got, err := receipt.Verify(log.receipt(int64(i)), leaf, log.key)
			want := receipt.Entry{Log: "log.example/policies", Index: uint64(i), Size: uint64(size)}
			if err != nil || got != want {
				t.Fatalf("leaf %d of %d: %+v, %v", i, size, got, err)
			}
		}
	}
}

func TestAReceiptIsOfOneLeafOfOneLog(t *testing.T) {
	log, other := newLog(t, "log.example/policies", leaves(7)...), newLog(t, "log.example/policies", leaves(7)...)
	renamed := newLog(t, "log.example/other", leaves(7)...)
	good := log.receipt(3)
	replaced := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	firstHash := strings.Split(string(good), "\n")[2]
	for _, c := range []struct {
		name    string
		receipt []byte
		content string
		key     string
		want    error
	}{
		{"as it is", good, "bundle 3", log.key, nil},
		{"another content", good, "bundle 4", log.key, receipt.ErrIncluded},
		{"another index", replaced("index 3", "index 2"), "bundle 3", log.key, receipt.ErrIncluded},
		{"an index beyond the tree", replaced("index 3", "index 7"), "bundle 3", log.key, receipt.ErrIncluded},
		{"a hash left out", replaced(firstHash+"\n", ""), "bundle 3", log.key, receipt.ErrIncluded},
		{"a hash more", replaced(firstHash, firstHash+"\n"+firstHash), "bundle 3", log.key, receipt.ErrIncluded},
		{"another size", replaced("\n7\n", "\n8\n"), "bundle 3", log.key, receipt.ErrCheckpoint},
		{"another log of the same name", good, "bundle 3", other.key, receipt.ErrCheckpoint},
		{"a log of another name", good, "bundle 3", renamed.key, receipt.ErrCheckpoint},
		{"no checkpoint", good[:bytes.Index(good, []byte("\n\n"))+2], "bundle 3", log.key, receipt.ErrCheckpoint},
		{"no receipt", []byte("nothing"), "bundle 3", log.key, receipt.ErrReceipt},
		{"more hashes than a tree has", replaced(firstHash, strings.Repeat(firstHash+"\n", 64)+firstHash), "bundle 3", log.key, receipt.ErrReceipt},
		{"more than a receipt has", make([]byte, receipt.MaxBytes+1), "bundle 3", log.key, receipt.ErrReceipt},
		{"no key", good, "bundle 3", "log.example", receipt.ErrKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := receipt.Verify(c.receipt, []byte(c.content), c.key)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
