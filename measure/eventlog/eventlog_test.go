// SPDX-License-Identifier: Apache-2.0

package eventlog_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/measure/eventlog"
)

// digest returns the sha256 of a text, as hexadecimal and as bytes.
func digest(t testing.TB, alg, text string) []byte {
	t.Helper()
	d, err := eventlog.Sum(alg, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// chain returns n records that measure texts "0", "1", ... into PCR 8, in the banks given.
func chain(t testing.TB, n int, banks ...string) []eventlog.Record {
	t.Helper()
	var records []eventlog.Record
	value := make([]byte, 32)
	for i := range n {
		pcr := uint32(8)
		d := digest(t, "sha256", string(rune('0'+i)))
		next, err := eventlog.Extend("sha256", value, d)
		if err != nil {
			t.Fatal(err)
		}
		r := eventlog.Record{Num: uint64(i), PCR: &pcr, ContentType: eventlog.ContentType, Content: eventlog.Content{
			EventType: eventlog.Policy, Binding: eventlog.Policy, Len: 1, Seq: uint64(i) + 1, Prev: value, Next: next,
			BootID: strings.Repeat("ab", 16), Timestamp: 4061113}}
		r.Content.SetDigest("sha256", d)
		for _, bank := range banks {
			b, err := eventlog.BankDigest(bank, d)
			if err != nil {
				t.Fatal(err)
			}
			r.Digests = append(r.Digests, eventlog.Digest{HashAlg: bank, Digest: b})
		}
		records, value = append(records, r), next
	}
	return records
}

func field(t testing.TB) eventlog.Record {
	match := true
	d := digest(t, "sha384", "x")
	r := eventlog.Record{ContentType: eventlog.ContentType, Digests: []eventlog.Digest{{HashAlg: "sha384", Digest: d}},
		Content: eventlog.Content{EventType: eventlog.Initdata, Binding: eventlog.Initdata, Len: 1, Seq: 1, Field: "mrconfigid", Value: d, Match: &match}}
	r.Content.SetDigest("sha384", d)
	return r
}

func encode(t testing.TB, records ...eventlog.Record) []byte {
	t.Helper()
	var log []byte
	for _, r := range records {
		b, err := eventlog.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, b...)
	}
	return log
}

// TestGoldenRecord fixes the bytes: systemd's field names, and the PCR value of a known measurement.
func TestGoldenRecord(t *testing.T) {
	pcr := uint32(8)
	d := digest(t, "sha256", "package agent_policy\n")
	next, err := eventlog.Extend("sha256", make([]byte, 32), d)
	if err != nil {
		t.Fatal(err)
	}
	r := eventlog.Record{PCR: &pcr, Digests: []eventlog.Digest{{HashAlg: "sha256", Digest: d}}, ContentType: "portcullis",
		Content: eventlog.Content{EventType: "policy", Binding: "policy", Len: 21, Seq: 1, Prev: make([]byte, 32), Next: next,
			BootID: strings.Repeat("0", 32), Timestamp: 4061113}}
	r.Content.SetDigest("sha256", d)
	const want = "\x1e" + `{"recnum":0,"pcr":8,"digests":[{"hashAlg":"sha256","digest":"45148e88381b22b43595cc1eaf2fadfd3f93998dbbb75bd4f3d69b641fe6153b"}],` +
		`"content_type":"portcullis","content":{"eventType":"policy","binding":"policy","alg":"sha256",` +
		`"sha256":"45148e88381b22b43595cc1eaf2fadfd3f93998dbbb75bd4f3d69b641fe6153b","len":21,"seq":1,` +
		`"prev":"0000000000000000000000000000000000000000000000000000000000000000",` +
		`"next":"b397f753bc3e2a7ccd2c9b320b42527466ef7e4ee468d81df03dfba9a9afccdc",` +
		`"bootId":"00000000000000000000000000000000","timestamp":4061113}}` + "\n"
	if diff := cmp.Diff(want, string(encode(t, r))); diff != "" {
		t.Error(diff)
	}
}

func TestRoundTrip(t *testing.T) {
	for name, records := range map[string][]eventlog.Record{
		"nothing":      nil,
		"one bank":     chain(t, 1, "sha256"),
		"four banks":   chain(t, 5, "sha1", "sha256", "sha384", "sha512"),
		"launch field": {field(t)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := eventlog.Decode(encode(t, records...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(records, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// mutations are the ways in which one well-formed log of two records must not be read.
var mutations = map[string]func(log string) string{
	"unknown key":        func(s string) string { return strings.Replace(s, `"recnum":0`, `"recnum":0,"x":1`, 1) },
	"repeated key":       func(s string) string { return strings.Replace(s, `"recnum":0`, `"recnum":9,"recnum":0`, 1) },
	"folded key":         func(s string) string { return strings.Replace(s, `"recnum"`, `"RecNum"`, 1) },
	"white space":        func(s string) string { return strings.Replace(s, `"recnum":0`, `"recnum": 0`, 1) },
	"escaped letter":     func(s string) string { return strings.Replace(s, `"portcullis"`, `"\u0070ortcullis"`, 1) },
	"upper-case digest":  func(s string) string { return strings.Replace(s, `"digest":"5feceb`, `"digest":"5FECEB`, 1) },
	"other content type": func(s string) string { return strings.Replace(s, `"portcullis"`, `"systemd"`, 1) },
	"wrong number":       func(s string) string { return strings.Replace(s, `"recnum":1`, `"recnum":2`, 1) },
	"wrong seq":          func(s string) string { return strings.Replace(s, `"seq":2`, `"seq":3`, 1) },
	"other bank's digest": func(s string) string {
		return strings.Replace(s, `"hashAlg":"sha256","digest":"5`, `"hashAlg":"sha256","digest":"6`, 1)
	},
	"unknown hash":       func(s string) string { return strings.Replace(s, `"hashAlg":"sha256"`, `"hashAlg":"md5"`, 1) },
	"unknown event":      func(s string) string { return strings.Replace(s, `"eventType":"policy"`, `"eventType":"reject"`, 1) },
	"negative length":    func(s string) string { return strings.Replace(s, `"len":1`, `"len":-1`, 1) },
	"PCR 24":             func(s string) string { return strings.ReplaceAll(s, `"pcr":8`, `"pcr":24`) },
	"boot id":            func(s string) string { return strings.Replace(s, `"bootId":"ab`, `"bootId":"AB`, 1) },
	"missing separator":  func(s string) string { return s[1:] },
	"no last LF":         func(s string) string { return s[:len(s)-1] },
	"extra LF":           func(s string) string { return s + "\n" },
	"trailing garbage":   func(s string) string { return s + "\x1e" },
	"records swapped":    func(s string) string { i := strings.LastIndex(s, "\x1e"); return s[i:] + s[:i] },
	"first record gone":  func(s string) string { return s[strings.LastIndex(s, "\x1e"):] },
	"oversize record":    func(s string) string { return "\x1e" + strings.Repeat("x", eventlog.MaxRecordSize) + "\n" },
	"oversize log":       func(s string) string { return strings.Repeat(s, eventlog.MaxLogSize/len(s)+1) },
	"endless cut record": func(s string) string { return "\x1e" + strings.Repeat("x", eventlog.MaxRecordSize) },
	"null":               func(string) string { return "\x1enull\n" },
	"array":              func(string) string { return "\x1e[]\n" },
}

func TestMalformedLogsAreRefused(t *testing.T) {
	good := string(encode(t, chain(t, 2, "sha256")...))
	for name, mutate := range mutations {
		t.Run(name, func(t *testing.T) {
			bad := mutate(good)
			if bad == good {
				t.Fatal("the mutation changes nothing")
			}
			if _, err := eventlog.Decode([]byte(bad)); !errors.Is(err, eventlog.ErrInvalid) {
				t.Errorf("Decode = %v, want ErrInvalid", err)
			}
		})
	}
}

func TestReplayRefusesABrokenChain(t *testing.T) {
	records := chain(t, 3, "sha256", "sha384")
	values, err := eventlog.Replay(records, 8)
	if err != nil || values["sha256"].String() != records[2].Content.Next.String() || len(values["sha384"]) != 48 {
		t.Fatalf("Replay = %v, %v", values, err)
	}
	if _, err := eventlog.Replay(records, 9); !errors.Is(err, eventlog.ErrInvalid) {
		t.Errorf("replay of another PCR: %v", err)
	}
	records[1].Content.Prev = make([]byte, 32)
	if _, err := eventlog.Replay(records, 8); !errors.Is(err, eventlog.ErrInvalid) {
		t.Errorf("replay with a false prev: %v", err)
	}
}

func TestBankDigest(t *testing.T) {
	d := digest(t, "sha256", "x")
	if got, err := eventlog.BankDigest("sha256", d); err != nil || !bytes.Equal(got, d) {
		t.Errorf("the sha256 bank takes %x, %v; want the digest itself", got, err)
	}
	if got, err := eventlog.BankDigest("sha384", d); err != nil || !bytes.Equal(got, digest(t, "sha384", string(d))) {
		t.Errorf("the sha384 bank takes %x, %v; want its hash of the digest", got, err)
	}
	for _, bad := range []struct {
		alg string
		d   []byte
	}{{"md5", d}, {"sha256", d[:31]}, {"sha256", append(d, 0)}, {"sha384", nil}} {
		if _, err := eventlog.BankDigest(bad.alg, bad.d); !errors.Is(err, eventlog.ErrInvalid) {
			t.Errorf("BankDigest(%s, %d bytes) = %v", bad.alg, len(bad.d), err)
		}
	}
}

func TestBindingDigest(t *testing.T) {
	for alg, bytes := range map[string]int{"sha256": 32, "sha384": 48, "sha512": 64} {
		if got, err := eventlog.BindingDigest(alg, []byte("x")); err != nil || hex.EncodeToString(got) != hex.EncodeToString(digest(t, alg, "x")) || len(got) != bytes {
			t.Errorf("%s: %x, %v", alg, got, err)
		}
	}
	for _, alg := range []string{"", "sha1", "md5", "SHA256"} {
		if got, err := eventlog.BindingDigest(alg, nil); !errors.Is(err, eventlog.ErrInvalid) {
			t.Errorf("%q: %x, %v", alg, got, err)
		}
	}
}

func TestFileKeepsTheMarkUntilCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	records := chain(t, 2, "sha256")
	f, err := eventlog.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Append(records[0]); !errors.Is(err, eventlog.ErrFile) {
		t.Errorf("Append without the mark = %v, want ErrFile", err)
	}
	for _, r := range records {
		if err := errors.Join(f.Mark(), f.Append(r)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600|os.ModeSticky {
		t.Fatalf("after Append: %v, %v; want the sticky bit", st.Mode(), err)
	}
	if f, err = eventlog.Open(path); err != nil || !f.Marked() || len(f.Records()) != 2 {
		t.Fatalf("reopened: %v", err)
	}
	if err := f.Keep(1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if f, err = eventlog.View(path); err != nil || f.Marked() || len(f.Records()) != 1 {
		t.Fatalf("after Keep: %v", err)
	}
	f.Close()
	if data, _ := os.ReadFile(path); !bytes.Equal(data, encode(t, records[0])) {
		t.Errorf("file holds %q", data)
	}
}

func TestFileRefusesToGrowWithoutBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var log []byte
	for i, r := 0, field(t); ; i++ {
		r.Num, r.Content.Seq = uint64(i), uint64(i)+1
		b := encode(t, r)
		if len(log)+len(b) > eventlog.MaxLogSize {
			break
		}
		log = append(log, b...)
	}
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := eventlog.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := field(t)
	r.Num, r.Content.Seq = uint64(len(f.Records())), uint64(len(f.Records()))+1
	if err := errors.Join(f.Mark(), f.Append(r)); !errors.Is(err, eventlog.ErrFile) {
		t.Errorf("Append to a full log = %v, want ErrFile", err)
	}
}

func TestViewCreatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if _, err := eventlog.View(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("View = %v, want not exist", err)
	}
}

// FuzzDecode: whatever is accepted encodes to the same bytes, and the tolerant reader accepts a prefix of it.
func FuzzDecode(f *testing.F) {
	good := string(encode(f, chain(f, 2, "sha256", "sha384")...))
	f.Add([]byte(good))
	f.Add(encode(f, field(f)))
	for _, mutate := range mutations {
		if bad := mutate(good); len(bad) < 64<<10 {
			f.Add([]byte(bad))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		records, good, err := eventlog.DecodePartial(data)
		if err != nil {
			if !errors.Is(err, eventlog.ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			return
		}
		if !bytes.Equal(encode(t, records...), data[:good]) {
			t.Fatal("accepted a log that is not in canonical form")
		}
		if _, err := eventlog.Decode(data); (err == nil) != (good == len(data)) {
			t.Fatalf("strict and tolerant reader differ: %v", err)
		}
		eventlog.Replay(records, 8) // must not panic
	})
}
