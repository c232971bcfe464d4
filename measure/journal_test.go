// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"crypto/sha512"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"portcullis/measure"
	"portcullis/measure/eventlog"
)

func TestJournalRecordsComparisons(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	open := func() *measure.Journal {
		j, err := measure.NewJournal(measure.Config{Log: path, BootID: boot, Boottime: func() uint64 { return 7 }})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	d := sha512.Sum384([]byte("initdata"))
	good := measure.Comparison{Event: measure.Event{Type: eventlog.Initdata, Binding: eventlog.Initdata, Alg: "sha384", Digest: d[:], Len: 8},
		Field: "mrconfigid", Value: d[:], Match: true}
	bad := measure.Comparison{Event: policy(text), Field: "hostdata", Value: make([]byte, 32)}
	for range 2 { // the second is the same match again
		if _, err := open().Record(good); err != nil {
			t.Fatal(err)
		}
	}
	for range measure.MaxMismatches + 10 {
		if _, err := open().Record(bad); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, err := eventlog.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 1+measure.MaxMismatches {
		t.Errorf("%d records, want %d", len(records), 1+measure.MaxMismatches)
	}
	first := records[0].Content
	if records[0].PCR != nil || first.Field != "mrconfigid" || first.Value.String() != eventlog.Hex(d[:]).String() || !*first.Match || first.Timestamp != 7 {
		t.Errorf("first record is %+v", records[0])
	}
	if *records[1].Content.Match {
		t.Error("a mismatch is recorded as a match")
	}
	if values, err := eventlog.Replay(records, 8); err != nil || len(values) != 0 {
		t.Errorf("comparisons replay to %v, %v; want no register at all", values, err)
	}
	if _, err := measure.NewJournal(measure.Config{}); err == nil {
		t.Error("a journal without a file")
	}
	j, _ := measure.NewJournal(measure.Config{Log: path, BootID: other})
	if _, err := j.Record(good); !errors.Is(err, measure.ErrLog) {
		t.Errorf("a log of another boot: %v, want ErrLog", err)
	}
}
