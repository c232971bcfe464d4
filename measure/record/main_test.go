// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"portcullis/internal/measuretest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

const boot = "0123456789abcdef0123456789abcdef"

// bench is a software TPM, or none, with a log beside it.
type bench struct {
	t      testing.TB
	Device string // "" for a chain without a register
	Log    string
	tpm    *measuretest.SWTPM
}

func newBench(t testing.TB) *bench {
	t.Helper()
	s, err := measuretest.Start()
	if errors.Is(err, measuretest.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &bench{t: t, Device: s.Device(), Log: filepath.Join(t.TempDir(), "measure.jsonseq"), tpm: s}
}

func newChain(t testing.TB) *bench {
	return &bench{t: t, Log: filepath.Join(t.TempDir(), "measure.jsonseq")}
}

// writer is one as a newly started process has it.
func writer(device, log string, onStep func(measure.Step)) (record.Writer, error) {
	cfg := measure.Config{Device: device, PCR: 14, Pod: true, Log: log, BootID: boot, OnStep: onStep}
	if device == "" {
		return measure.NewChain(cfg)
	}
	return measure.New(cfg)
}

// open opens a book of a pod that its policy takes for complete.
func (b *bench) open() *record.Book {
	b.t.Helper()
	w, err := writer(b.Device, b.Log, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	book, err := record.Open(b.t.Context(), w, always, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return book
}

func always(context.Context) bool { return true }

// facts are those of the log.
func (b *bench) facts() []record.Fact {
	b.t.Helper()
	facts, err := record.Read(b.records())
	if err != nil {
		b.t.Fatal(err)
	}
	return facts
}

func (b *bench) records() []eventlog.Record {
	b.t.Helper()
	data, err := os.ReadFile(b.Log)
	if err != nil {
		b.t.Fatal(err)
	}
	records, err := eventlog.Decode(data)
	if err != nil {
		b.t.Fatal(err)
	}
	_, pod := eventlog.Split(records)
	return pod
}

// pcr14 reads the sha256 bank past the code under test.
func (b *bench) pcr14() string {
	b.t.Helper()
	t, err := linuxudstpm.Open(strings.TrimPrefix(b.Device, "unix://"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer t.Close()
	r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(14)}}}}.Execute(t)
	if err != nil {
		b.t.Fatal(err)
	}
	return hex.EncodeToString(r.PCRValues.Digests[0].Buffer)
}

// agrees requires that the log leads to the register, and returns the kinds of its facts in order.
func (b *bench) agrees() string {
	b.t.Helper()
	records := b.records()
	head, err := eventlog.Head(records)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.Device != "" && head.String() != b.pcr14() {
		b.t.Errorf("the log leads to %s, PCR 14 is %s", head, b.pcr14())
	}
	var kinds []string
	for _, f := range b.facts() {
		kinds = append(kinds, string(f.Kind))
	}
	return strings.Join(kinds, " ")
}

// child is what a re-executed test binary does: live through a pod's life, and kill itself after a step of one fact.
type child struct {
	Device, Log string
	Fact        int // of the register's updates, from 1
	Step        measure.Step
	Fill        bool // it fills the record in place of a pod's life
}

const childVar = "RECORD_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childVar); task != "" {
		os.Exit(runChild(task))
	}
	os.Exit(m.Run())
}

func runChild(task string) int {
	var c child
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		panic(err)
	}
	fact := 0
	w, err := writer(c.Device, c.Log, func(s measure.Step) {
		if s == measure.StepRead {
			fact++
		}
		if fact == c.Fact && s == c.Step {
			measuretest.Die()
		}
	})
	if err != nil {
		panic(err)
	}
	book, err := record.Open(context.Background(), w, always, nil)
	if err == nil {
		if c.Fill {
			err = fill(book)
		} else {
			err = live(book)
		}
	}
	fmt.Println(err)
	return 1
}

// killed runs the child and requires that it killed itself.
func (b *bench) killed(fact int, step measure.Step) {
	b.t.Helper()
	measuretest.Killed(b.t, childVar, child{b.Device, b.Log, fact, step, false})
}
