// SPDX-License-Identifier: Apache-2.0

package rim_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"portcullis/measure/rim"
)

var values = []rim.Value{
	{Model: "snp", Key: "hostdata", Raw: []byte{1, 2}},
	{Model: "tpm", Key: "pcr8", Digests: []rim.Digest{{Alg: "sha256", Value: []byte{3}}, {Alg: "sha384", Value: []byte{4}}}},
}

func TestRVPSIsASampleOfListsByName(t *testing.T) {
	text, err := rim.RVPS(values)
	if err != nil {
		t.Fatal(err)
	}
	var message struct{ Version, Type, Payload string }
	if err := json.Unmarshal(text, &message); err != nil || message.Type != "sample" || message.Version != "0.1.0" {
		t.Fatalf("%+v, %v", message, err)
	}
	payload, err := base64.StdEncoding.DecodeString(message.Payload)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"portcullis/snp/hostdata/raw_bytes":["0102"],"portcullis/tpm/pcr8/digests":["03","04"]}`
	if string(payload) != want {
		t.Errorf("payload %s, want %s", payload, want)
	}
}

// TestCoRIMIsOfTheDraftsForm: the bytes, as written by hand from the draft's CDDL, so that a mistake in a number is not made twice.
func TestCoRIMIsOfTheDraftsForm(t *testing.T) {
	data, err := rim.CoRIM("x", values)
	if err != nil {
		t.Fatal(err)
	}
	// 501({0: "x", 1: [506(<< {1: {0: "x"}, 4: {0: [[{0: {1: vendor, 2: "snp"}}, [{0: "hostdata", 1: {4: 560(h'0102')}}]], ...]}}
	// >>)]})
	comid := "a2" + "01" + "a1006178" + "04" + "a100" + "82" +
		"82" + "a100a2" + "01" + "6a706f727463756c6c6973" + "02" + "63736e70" + "81" + "a2" + "00" + "68686f737464617461" + "01" + "a1" + "04" + "d90230" + "420102" +
		"82" + "a100a2" + "01" + "6a706f727463756c6c6973" + "02" + "6374706d" + "81" + "a2" + "00" + "6470637238" + "01" + "a1" + "02" + "82" + "82014103" + "82074104"
	want := "d901f5" + "a2" + "00" + "6178" + "01" + "81" + "d901fa" + "58" + hex.EncodeToString([]byte{byte(len(comid) / 2)}) + comid
	if got := hex.EncodeToString(data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCoRIMIsReadBack(t *testing.T) {
	data, err := rim.CoRIM("portcullis-x", values)
	if err != nil {
		t.Fatal(err)
	}
	id, got, err := rim.ReadCoRIM(data)
	if err != nil || id != "portcullis-x" {
		t.Fatalf("%s, %v", id, err)
	}
	if diff := cmp.Diff(values, got); diff != "" {
		t.Error(diff)
	}
	for n := range data {
		if _, _, err := rim.ReadCoRIM(data[:n]); !errors.Is(err, rim.ErrInvalid) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	other, err := cbor.Marshal(cbor.Tag{Number: 500, Content: map[int]string{0: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := rim.ReadCoRIM(other); !errors.Is(err, rim.ErrInvalid) {
		t.Errorf("another tag: %v", err)
	}
}

func TestWhatIsNoValueIsRefused(t *testing.T) {
	for _, v := range []rim.Value{
		{}, {Model: "snp", Key: "hostdata"}, {Model: "snp", Key: "x", Raw: []byte{1}, Digests: []rim.Digest{{Alg: "sha256"}}},
		{Key: "x", Raw: []byte{1}}, {Model: "tpm", Key: "pcr8", Digests: []rim.Digest{{Alg: "sha1", Value: []byte{1}}}},
	} {
		if _, err := rim.RVPS([]rim.Value{v}); !errors.Is(err, rim.ErrInvalid) {
			t.Errorf("RVPS of %+v: %v", v, err)
		}
		if _, err := rim.CoRIM("x", []rim.Value{v}); !errors.Is(err, rim.ErrInvalid) {
			t.Errorf("CoRIM of %+v: %v", v, err)
		}
	}
}

func FuzzReadCoRIM(f *testing.F) {
	data, err := rim.CoRIM("x", values)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) { _, _, _ = rim.ReadCoRIM(data) })
}
