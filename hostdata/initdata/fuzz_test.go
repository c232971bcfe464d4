// SPDX-License-Identifier: Apache-2.0

package initdata_test

import (
	"bytes"
	"errors"
	"testing"

	"portcullis/hostdata/initdata"
)

// checkDocument fails the test unless a document that was accepted can be made again from its parts and survives every encoding.
func checkDocument(t *testing.T, doc *initdata.Document) {
	t.Helper()
	data := make(map[string]string)
	for _, key := range doc.Keys() {
		data[key], _ = doc.Value(key)
	}
	again, err := initdata.New(doc.Algorithm(), data)
	if err != nil {
		// Escapes may make it longer than a document may be.
		if len(doc.Bytes()) > initdata.MaxDocument/8 {
			return
		}
		t.Fatalf("not made again: %v", err)
	}
	for _, key := range again.Keys() {
		if value, _ := again.Value(key); value != data[key] {
			t.Fatalf("%q: %q became %q", key, data[key], value)
		}
	}
	if len(again.Keys()) != len(data) {
		t.Fatalf("keys %q became %q", doc.Keys(), again.Keys())
	}
	var img bytes.Buffer
	if err := doc.WriteImage(&img); err != nil {
		return // does not compress
	}
	read, err := initdata.ReadImage(&img)
	if err != nil || !bytes.Equal(read.Bytes(), doc.Bytes()) || !bytes.Equal(read.Digest(), doc.Digest()) {
		t.Fatalf("image: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range golden(f) {
		f.Add(readFile(f, name+".toml"))
	}
	for _, value := range values {
		doc, err := initdata.New(initdata.SHA512, map[string]string{"k": value})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc.Bytes())
	}
	f.Add([]byte(header + "data.a = 'b'\n"))
	f.Add([]byte("[[a]]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := initdata.Parse(text)
		if err != nil {
			if !errors.Is(err, initdata.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(doc.Bytes(), text) {
			t.Fatalf("bytes %q of %q", doc.Bytes(), text)
		}
		checkDocument(t, doc)
	})
}

func FuzzReadImage(f *testing.F) {
	for _, name := range golden(f) {
		f.Add(readFile(f, name+".img"))
	}
	f.Add(rawImage(nil, 1<<64-1, 512))
	f.Add([]byte("initdata"))
	f.Fuzz(func(t *testing.T, img []byte) {
		doc, err := initdata.ReadImage(bytes.NewReader(img))
		if err != nil {
			if !errors.Is(err, initdata.ErrInvalid) && !errors.Is(err, initdata.ErrNoDisk) {
				t.Fatal(err)
			}
			return
		}
		checkDocument(t, doc)
	})
}

func FuzzParseAnnotation(f *testing.F) {
	for _, name := range golden(f) {
		f.Add(string(readFile(f, name+".annotation")))
	}
	f.Fuzz(func(t *testing.T, value string) {
		doc, err := initdata.ParseAnnotation(value)
		if err != nil {
			if !errors.Is(err, initdata.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(shim(t, value), doc.Bytes()) {
			t.Fatal("the shim reads other bytes")
		}
	})
}
