// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"context"
	"crypto/sha256"
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
)

// child is what a re-executed test binary does: measure, and kill itself after a step.
type child struct {
	Device, Log string
	Text        string
	Step        measure.Step
	Preextended bool
	Update      bool
}

const childVar = "MEASURE_TEST_CHILD"

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
	r, err := measure.New(measure.Config{Device: c.Device, PCR: 8, Log: c.Log, BootID: boot, ExpectPreextended: c.Preextended,
		OnStep: func(s measure.Step) {
			if s == c.Step {
				measuretest.Die()
			}
		}})
	if err != nil {
		panic(err)
	}
	do := r.Measure
	if c.Update {
		do = r.Update
	}
	if _, err := do(context.Background(), policy(c.Text)); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// killed runs the child and requires that it killed itself.
func (c child) killed(t *testing.T) {
	t.Helper()
	measuretest.Killed(t, childVar, c)
}

const (
	boot  = "0123456789abcdef0123456789abcdef"
	other = "ffffffffffffffffffffffffffffffff"
	text  = "package agent_policy\n"
	text2 = "package agent_policy\n\ndefault X := true\n"
	// goldenX is PCR 8 of the sha256 bank after one extend from zero by SHA-256(text), as tpm2_pcrextend leaves it.
	goldenX = "b397f753bc3e2a7ccd2c9b320b42527466ef7e4ee468d81df03dfba9a9afccdc"
)

func policy(text string) measure.Event {
	d := sha256.Sum256([]byte(text))
	return measure.Event{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", Digest: d[:], Len: int64(len(text))}
}

// skip ends a test for want of a tool; where CI is set that is a failure.
func skip(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip("SKIPPED: ", err)
}

func startTPM(t testing.TB) *measuretest.SWTPM {
	t.Helper()
	s, err := measuretest.Start()
	if errors.Is(err, measuretest.ErrMissing) {
		skip(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// bench is one swtpm with a log beside it.
type bench struct {
	t   testing.TB
	tpm *measuretest.SWTPM
	log string
}

func newBench(t testing.TB) *bench {
	return &bench{t, startTPM(t), filepath.Join(t.TempDir(), "measure.jsonseq")}
}

// register returns a Register as a newly started process has it.
func (b *bench) register(change func(*measure.Config)) *measure.Register {
	b.t.Helper()
	cfg := measure.Config{Device: b.tpm.Device(), PCR: 8, Log: b.log, BootID: boot}
	if change != nil {
		change(&cfg)
	}
	r, err := measure.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func preextended(c *measure.Config) { c.ExpectPreextended = true }

// pcr reads PCR 8 past the code under test, in each of swtpm's banks.
func (b *bench) pcr() map[string]string {
	b.t.Helper()
	t, err := linuxudstpm.Open(strings.TrimPrefix(b.tpm.Device(), "unix://"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer t.Close()
	values := map[string]string{}
	for name, alg := range map[string]tpm2.TPMAlgID{"sha1": tpm2.TPMAlgSHA1, "sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384, "sha512": tpm2.TPMAlgSHA512} {
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(8)}}}}.Execute(t)
		if err != nil {
			b.t.Fatal(err)
		}
		values[name] = hex.EncodeToString(r.PCRValues.Digests[0].Buffer)
	}
	return values
}

// foreign extends PCR 8's sha256 bank as another program would: tpm2_pcrextend 8:sha256=...
func (b *bench) foreign(digest []byte) { b.t.Helper(); b.foreignBank(tpm2.TPMAlgSHA256, digest) }

func (b *bench) foreignBank(alg tpm2.TPMAlgID, digest []byte) {
	b.t.Helper()
	t, err := linuxudstpm.Open(strings.TrimPrefix(b.tpm.Device(), "unix://"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer t.Close()
	_, err = tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 8, Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: alg, Digest: digest}}}}.Execute(t)
	if err != nil {
		b.t.Fatal(err)
	}
}

// extended computes what the given texts, measured in turn, leave in each bank, without the package's own arithmetic for the
// sha256 bank.
func extended(t testing.TB, texts ...string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, alg := range []string{"sha1", "sha256", "sha384", "sha512"} {
		v := make([]byte, eventlog.Size(alg))
		for _, text := range texts {
			d := sha256.Sum256([]byte(text))
			digest := d[:]
			if alg != "sha256" {
				var err error
				if digest, err = eventlog.Sum(alg, digest); err != nil {
					t.Fatal(err)
				}
			}
			next, err := eventlog.Sum(alg, v, digest)
			if err != nil {
				t.Fatal(err)
			}
			v = next
		}
		values[alg] = hex.EncodeToString(v)
	}
	return values
}

// wantPCR requires the value of every bank.
func (b *bench) wantPCR(texts ...string) {
	b.t.Helper()
	got, want := b.pcr(), extended(b.t, texts...)
	for bank := range want {
		if got[bank] != want[bank] {
			b.t.Errorf("PCR 8 in bank %s is %s, want %s (%d extends)", bank, got[bank], want[bank], len(texts))
		}
	}
}

// wantLog requires a well-formed log without a mark that replays to the PCR, with n events.
func (b *bench) wantLog(n int) {
	b.t.Helper()
	data, err := os.ReadFile(b.log)
	if err != nil {
		b.t.Fatal(err)
	}
	st, err := os.Stat(b.log)
	if err != nil {
		b.t.Fatal(err)
	}
	if st.Mode() != 0o600 {
		b.t.Errorf("log has mode %v, want -rw-------", st.Mode())
	}
	records, err := eventlog.Decode(data)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(records) != n {
		b.t.Errorf("log has %d records, want %d", len(records), n)
	}
	values, err := eventlog.Replay(records, 8)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := b.pcr()["sha256"]; n > 0 && got != values["sha256"].String() {
		b.t.Errorf("PCR 8 is %s, the log replays to %s", got, values["sha256"])
	}
	if bytes.Contains(data, []byte("agent_policy")) {
		b.t.Error("the log holds policy text")
	}
}
