// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"portcullis/internal/measuretest"
	"portcullis/measure"
)

// faulty puts a fault in front of the swtpm.
func (b *bench) faulty(inject func(tpm2.TPMCC) measuretest.Fault) func(*measure.Config) {
	return func(c *measure.Config) {
		c.Dial = func() (transport.TPMCloser, error) {
			t, err := linuxudstpm.Open(strings.TrimPrefix(b.tpm.Device(), "unix://"))
			return &measuretest.Faulty{TPM: t, Inject: inject}, err
		}
	}
}

func TestTPMFaults(t *testing.T) {
	const many = 1 << 20
	extend, read, capability := tpm2.TPMCCPCRExtend, tpm2.TPMCCPCRRead, tpm2.TPMCCGetCapability
	tests := []struct {
		name   string
		inject func(tpm2.TPMCC) measuretest.Fault
		want   error // nil: the measurement succeeds
		reason string
	}{
		{"five retries of the extend are borne", measuretest.Times(5, extend, measuretest.Fault{RC: tpm2.TPMRCRetry}), nil, ""},
		{"five yields of the read are borne", measuretest.Times(5, read, measuretest.Fault{RC: tpm2.TPMRCYielded}), nil, ""},
		{"a self-test is borne", measuretest.Times(3, capability, measuretest.Fault{RC: tpm2.TPMRCTesting}), nil, ""},
		{"endless retries of the extend are refused", measuretest.Times(many, extend, measuretest.Fault{RC: tpm2.TPMRCRetry}), measure.ErrBusy, "pcr-extend-failed"},
		{"endless retries at the start are refused", measuretest.Times(many, capability, measuretest.Fault{RC: tpm2.TPMRCRetry}), measure.ErrBusy, "no-backend"},
		{"a refused extend is refused", measuretest.Times(many, extend, measuretest.Fault{RC: tpm2.TPMRCLocality}), measure.ErrExtend, "pcr-extend-failed"},
		{"a failed TPM is refused", measuretest.Times(many, read, measuretest.Fault{RC: tpm2.TPMRCFailure}), measure.ErrRead, "field-read-failed"},
		{"a socket that breaks before the extend is refused", measuretest.Times(1, extend, measuretest.Fault{Before: syscall.EPIPE}), measure.ErrExtend, "pcr-extend-failed"},
		{"a lost answer to an extend is no second extend", measuretest.Times(1, extend, measuretest.Fault{After: io.ErrUnexpectedEOF}), nil, ""},
		{"an empty answer is refused", measuretest.Times(many, read, measuretest.Fault{Reply: []byte{}}), measure.ErrRead, "field-read-failed"},
		{"a cut answer is refused", measuretest.Times(many, read, measuretest.Fault{Reply: []byte{0x80, 1, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 1}}), measure.ErrRead, "field-read-failed"},
		{"an extend that was answered and not done is refused", measuretest.Times(1, extend, measuretest.Fault{Reply: []byte{
			0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}}), measure.ErrUnexpected, "pcr-unexpected"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			_, err := b.register(b.faulty(tt.inject)).Measure(t.Context(), policy(text))
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("Measure = %v, want %v", err, tt.want)
			}
			if got := measure.Reason(err); got != tt.reason {
				t.Errorf("reason %q of %v, want %q", got, err, tt.reason)
			}
			if tt.want != nil {
				b.wantPCR()
			}
			// A sound TPM afterwards: one extend, whatever happened before.
			if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
				t.Fatal(err)
			}
			b.wantPCR(text)
			b.wantLog(1)
		})
	}
}

// TestSocketDiesMidCommand: neither the extend's answer nor the read back arrives, and the value stays unknown.
func TestSocketDiesMidCommand(t *testing.T) {
	for name, executed := range map[string]bool{"executed": true, "not executed": false} {
		t.Run(name, func(t *testing.T) {
			b, dead := newBench(t), false
			r := b.register(b.faulty(func(cc tpm2.TPMCC) measuretest.Fault {
				switch {
				case dead:
					return measuretest.Fault{Before: syscall.ECONNRESET}
				case cc == tpm2.TPMCCPCRExtend && executed:
					dead = true
					return measuretest.Fault{After: io.ErrUnexpectedEOF}
				case cc == tpm2.TPMCCPCRExtend:
					dead = true
					return measuretest.Fault{Before: io.ErrUnexpectedEOF}
				}
				return measuretest.Fault{}
			}))
			if _, err := r.Measure(t.Context(), policy(text)); !errors.Is(err, measure.ErrExtend) {
				t.Fatalf("Measure = %v, want ErrExtend", err)
			}
			b.resumes(executed, text)
			if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
				t.Fatal(err)
			}
			b.wantPCR(text)
			b.wantLog(1)
		})
	}
}

func TestForeignExtendBetweenReadAndExtendIsRefused(t *testing.T) {
	for _, step := range []measure.Step{measure.StepRead, measure.StepLogged, measure.StepExtended} {
		t.Run(step.String(), func(t *testing.T) {
			b := newBench(t)
			r := b.register(func(c *measure.Config) {
				c.OnStep = func(s measure.Step) {
					if s == step {
						b.foreign(make([]byte, 32))
					}
				}
			})
			for range 2 {
				if _, err := r.Measure(t.Context(), policy(text)); !errors.Is(err, measure.ErrUnexpected) {
					t.Errorf("Measure = %v, want ErrUnexpected", err)
				}
				if _, err := r.Resume(t.Context()); !errors.Is(err, measure.ErrUnexpected) {
					t.Errorf("Resume = %v, want ErrUnexpected", err)
				}
			}
		})
	}
}

// TestHangingTPM: the caller gets its answer at its deadline, the measurement goes on by itself, and is done once.
func TestHangingTPM(t *testing.T) {
	b := newBench(t)
	logged := false
	r := b.register(func(c *measure.Config) {
		c.OnStep = func(s measure.Step) {
			if s == measure.StepRead && !logged {
				logged = true
				if err := b.tpm.Hang(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Measure(ctx, policy(text)); !errors.Is(err, measure.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Measure = %v, want ErrBusy for the deadline", err)
	}
	if _, err := r.State(ctx); !errors.Is(err, measure.ErrBusy) {
		t.Errorf("State while the TPM hangs = %v, want ErrBusy", err)
	}
	if err := b.tpm.Continue(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	b.wantPCR(text)
	b.wantLog(1)
}

func TestBankMissing(t *testing.T) {
	b := newBench(t)
	if _, err := b.tpm.Tool(t.TempDir(), "tpm2_pcrallocate", "sha256:none+sha384:all"); err != nil {
		skip(t, err)
	}
	if err := b.tpm.Restart(); err != nil {
		t.Fatal(err)
	}
	_, err := b.register(nil).Measure(t.Context(), policy(text))
	if !errors.Is(err, measure.ErrBank) || measure.Reason(err) != "no-backend" {
		t.Errorf("Measure = %v (%s), want ErrBank", err, measure.Reason(err))
	}
	if _, err := b.register(nil).Resume(t.Context()); !errors.Is(err, measure.ErrBank) {
		t.Errorf("Resume = %v, want ErrBank", err)
	}
	if _, err := os.Stat(b.log); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a log was begun")
	}
}

func TestNoTPM(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stale, err := measuretest.Start()
	if err != nil {
		skip(t, err)
	}
	stale.Close()
	busy := func(c *measure.Config) {
		c.Dial = func() (transport.TPMCloser, error) {
			return nil, &os.PathError{Op: "open", Path: "/dev/tpm0", Err: syscall.EBUSY}
		}
	}
	denied := func(c *measure.Config) {
		c.Dial = func() (transport.TPMCloser, error) {
			return nil, &os.PathError{Op: "open", Path: "/dev/tpmrm0", Err: syscall.EACCES}
		}
	}
	tests := []struct {
		name, device string
		change       func(*measure.Config)
		want         error
		reason       string
	}{
		{"no device", filepath.Join(dir, "tpmrm0"), nil, measure.ErrNoTPM, "no-backend"},
		{"a file in place of the device", file, nil, measure.ErrNoTPM, "no-backend"},
		{"a file in place of the socket", "unix://" + file, nil, measure.ErrNoTPM, "no-backend"},
		{"a socket that is gone", stale.Device(), nil, measure.ErrNoTPM, "no-backend"},
		{"a busy device", "/dev/tpm0", busy, measure.ErrBusy, "no-backend"},
		{"no permission", "/dev/tpmrm0", denied, measure.ErrRead, "field-read-failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := measure.Config{Device: tt.device, PCR: 8, Log: filepath.Join(dir, "log")}
			if tt.change != nil {
				tt.change(&cfg)
			}
			r, err := measure.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = r.Measure(t.Context(), policy(text)); !errors.Is(err, tt.want) || measure.Reason(err) != tt.reason {
				t.Errorf("Measure = %v (%s), want %v (%s)", err, measure.Reason(err), tt.want, tt.reason)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			if _, err := os.Stat(cfg.Log); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a log was begun")
			}
		})
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for pcr := range uint32(30) {
		_, err := measure.New(measure.Config{Device: "/dev/tpmrm0", PCR: pcr, Log: "/l"})
		allowed := pcr >= 8 && pcr <= 15
		var typed *measure.PCRError
		if allowed != (err == nil) || !allowed && (!errors.Is(err, measure.ErrPCR) || !errors.As(err, &typed)) {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
	for _, cfg := range []measure.Config{{PCR: 8, Log: "/l"}, {PCR: 8, Log: "/l", Device: "tcp://x"}, {PCR: 8, Device: "/dev/tpmrm0"}} {
		if _, err := measure.New(cfg); err == nil {
			t.Errorf("New(%+v) succeeds", cfg)
		}
	}
}

// TestLogFull: without room for the record nothing is extended, and once there is room all goes on.
func TestLogFull(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=16k"); err != nil {
		skip(t, err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	b.log = filepath.Join(dir, "measure.jsonseq")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the file system: %v", err)
	}
	_, err := b.register(nil).Measure(t.Context(), policy(text))
	if !errors.Is(err, measure.ErrLog) || !errors.Is(err, syscall.ENOSPC) || measure.Reason(err) != "log-failed" {
		t.Errorf("Measure = %v (%s), want ErrLog for ENOSPC", err, measure.Reason(err))
	}
	b.wantPCR()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := b.register(nil).Measure(t.Context(), policy(text)); err != nil {
		t.Fatal(err)
	}
	b.wantPCR(text)
	b.wantLog(1)
}

func TestLogFileMustBeOurs(t *testing.T) {
	tests := map[string]func(path string) error{
		"no directory": func(path string) error { return os.Remove(filepath.Dir(path)) },
		"symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(path+"2", nil, 0o600), os.Symlink(path+"2", path))
		},
		"hard link":      func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Link(path, path+"2")) },
		"readable":       func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"named pipe":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":      func(path string) error { return os.Mkdir(path, 0o600) },
		"another's file": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 1, 1)) },
	}
	b := newBench(t)
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			b.log = filepath.Join(t.TempDir(), "sub", "log")
			if err := os.Mkdir(filepath.Dir(b.log), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := prepare(b.log); errors.Is(err, fs.ErrPermission) {
				skip(t, err)
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := b.register(nil).Measure(t.Context(), policy(text)); !errors.Is(err, measure.ErrLog) {
				t.Errorf("Measure = %v, want ErrLog", err)
			}
			b.wantPCR()
		})
	}
}
