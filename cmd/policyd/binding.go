// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"portcullis/engine/binding"
	"portcullis/engine/narrow"
	"portcullis/engine/policytext"
	"portcullis/hostdata"
	"portcullis/hostdata/initdata"
	"portcullis/internal/version"
	"portcullis/measure"
	"portcullis/measure/record"
	"portcullis/rules"
)

// guest is where policyd looks for hardware, and for initdata: the running guest, or what a test puts in its place.
type guest struct {
	system   hostdata.System
	disks    initdata.Disks
	root     string             // before paths of /sys and /dev of a TPM
	initdata string             // where guest components find their part of initdata
	copies   []string           // other directories in which they may find some
	deadline time.Duration      // for reading all of the hardware at start
	onStep   func(measure.Step) // called after each step of a measurement; nil: nothing
	// onPodStep is onStep for the measurement of a fact of the pod's life.
	onPodStep func(measure.Step)
	dial      func() (transport.TPMCloser, error) // opens the TPM; nil: the configured device
}

// startDeadline is a little more than the kernel's driver retries a request that the SNP security processor throttles.
const startDeadline = 90 * time.Second

func thisGuest() guest {
	return guest{initdata: initdata.Directory, copies: []string{"/run/peerpod"}, deadline: startDeadline}
}

// binder finds out, step by step, what a guest can be bound to.
type binder struct {
	config bindingConfig
	events string // file of the event log
	runDir string // where the bound initdata is kept for a restart
	bootID string
	guest  guest
	log    *slog.Logger
	tee    hostdata.Kind // of which there is any sign

	measure   measureConfig
	record    record.Writer // of the pod's life; nil: it is not recorded
	recordPCR uint32        // 0: the record is not in a register

	out binding.Config
}

// bind reads the hardware once. What it returns has in out what the chain needs of it. Whatever goes wrong is in the result as
// the reason to deny everything: nothing that cannot be read counts as absent.
func bind(ctx context.Context, c config, g guest, bootID string, logger *slog.Logger) *binder {
	ctx, cancel := context.WithTimeout(ctx, g.deadline)
	defer cancel()
	b := &binder{config: c.Binding, events: c.Log.Events, runDir: c.runDir(), bootID: strings.ReplaceAll(bootID, "-", ""), guest: g, log: logger, measure: c.Measure}
	b.out = binding.Config{Alg: c.Binding.Alg, Log: logger,
		Facts: binding.Facts{Version: version.Build(), Rules: version.Rules(), Mode: c.Binding.Mode, Backend: "none", Binding: "none", Log: c.Log.Events}}
	for _, step := range []func(context.Context) error{b.detect, b.choose, b.chooseRecord, b.readInitdata} {
		if err := step(ctx); err != nil {
			b.deny(err)
			break
		}
	}
	b.conclude()
	return b
}

// deny keeps the guest closed for good.
func (b *binder) deny(err error) {
	var own *binding.Error
	if !errors.As(err, &own) {
		own = &binding.Error{Code: binding.Code(hostdata.Reason(err)), Err: err}
	}
	if own.Code == "" {
		own.Code = binding.CodeFieldRead
	}
	b.out.Denied = own
}

func refused(code binding.Code, format string, args ...any) error {
	return &binding.Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// detect looks for signs of a TEE. A backend of vtpm needs nothing else of the TEE; for the others it must be readable.
func (b *binder) detect(ctx context.Context) (err error) {
	if b.config.Backend != "vtpm" {
		b.tee, err = hostdata.Detect(ctx, b.guest.system)
		if err != nil {
			return err
		}
	} else if err := b.signals(); err != nil {
		return err
	}
	if b.config.Mode == "off" && b.tee != hostdata.None {
		return refused(binding.CodeModeRefused, "binding.mode is off in a guest that shows %s; use auto or required", b.tee)
	}
	return nil
}

func (b *binder) signals() error {
	signals, err := b.guest.system.Signals()
	if err != nil {
		return err
	}
	for _, s := range signals {
		if b.tee != hostdata.None && b.tee != s.Kind {
			return fmt.Errorf("%w: %s and %s", hostdata.ErrTwoTEEs, b.tee, s.Kind)
		}
		b.tee = s.Kind
	}
	return nil
}

// choose takes the backend: what the configuration names, else the TEE, else a TPM that is trusted.
func (b *binder) choose(ctx context.Context) error {
	backend, trusted := b.config.Backend, b.config.VTPM.Trust != ""
	if backend == "auto" {
		switch {
		case b.tee != hostdata.None:
			backend = string(b.tee)
		case trusted || b.hasTPM():
			backend = "vtpm"
		}
	}
	switch {
	case b.config.Mode == "off":
		return nil
	case backend == "auto" && b.mustBind():
		return refused(binding.CodeNoBackend, "binding.mode is required, and this guest shows neither a TEE nor a TPM")
	case backend == "auto":
		return nil
	case backend != "vtpm":
		return b.useField(ctx, hostdata.Kind(backend))
	case trusted:
		return b.useTrusted()
	case b.mustBind():
		return refused(binding.CodeTPMUntrusted, "a TPM binds nothing unless binding.vtpm.trust says why the host does not control it")
	case !b.hasTPM():
		return nil
	}
	b.out.Facts.Note = fmt.Sprintf("measured pcr%d", b.config.VTPM.PCR)
	return b.useRegister()
}

// mustBind reports whether the guest stays closed without a backend.
func (b *binder) mustBind() bool { return b.config.Mode == "required" || b.tee != hostdata.None }

func (b *binder) useField(ctx context.Context, kind hostdata.Kind) error {
	if kind != b.tee {
		return refused(binding.CodeNoBackend, "binding.backend is %s, and this guest does not show it", kind)
	}
	b.out.Facts.Backend = string(kind)
	field, err := hostdata.Read(ctx, kind, hostdata.Options{System: b.guest.system, AllowDebug: b.config.AllowDebugGuest})
	if err != nil {
		return err
	}
	journal, err := measure.NewJournal(measure.Config{Log: b.events, BootID: b.bootID})
	if err != nil {
		return refused(binding.CodeLogFailed, "%w", err)
	}
	b.out.Field, b.out.Recorder = field, &recorder{journal, field}
	b.out.Facts.Field = &binding.FieldFacts{Name: field.Name, Value: fmt.Sprintf("%x", field.Value), Source: string(field.Source)}
	if field.Debug {
		b.log.Warn("THE HOST CAN DEBUG OR MIGRATE THIS GUEST: allow_debug_guest is set, nothing in it is secret")
	}
	return nil
}

// driverSVSM is the kernel's driver of the TPM in an SVSM, as it calls itself on the platform bus; see
// drivers/char/tpm/tpm_svsm.c. Only the file of the module has an underscore.
const driverSVSM = "tpm-svsm"

func (b *binder) useTrusted() error {
	b.out.Facts.Backend = "vtpm"
	if b.config.VTPM.Trust == "svsm" {
		if d := b.config.VTPM.Device; d != "/dev/tpmrm0" && d != "/dev/tpm0" {
			return refused(binding.CodeTPMUntrusted, "binding.vtpm.trust is svsm, and %s is not the kernel's TPM", d)
		}
		driver, err := os.Readlink(filepath.Join("/", b.guest.root, "/sys/class/tpm/tpm0/device/driver"))
		if errors.Is(err, fs.ErrNotExist) {
			return refused(binding.CodeNoBackend, "binding.vtpm.trust is svsm, and there is no TPM: %w", err)
		}
		if err != nil {
			return refused(binding.CodeTPMUntrusted, "read the TPM's driver: %w", err)
		}
		if name := filepath.Base(driver); name != driverSVSM {
			return refused(binding.CodeTPMUntrusted, "binding.vtpm.trust is svsm, and the TPM's driver is %.40q, not %s", name, driverSVSM)
		}
	}
	return b.useRegister()
}

func (b *binder) useRegister() error {
	r, err := measure.New(measure.Config{
		Device: b.config.VTPM.Device, PCR: uint32(b.config.VTPM.PCR), ExpectPreextended: b.config.VTPM.ExpectPreextended,
		Log: b.events, BootID: b.bootID, OnStep: b.guest.onStep, Dial: b.guest.dial,
	})
	if err != nil {
		return refused(binding.CodeNoBackend, "%w", err)
	}
	b.out.Facts.Backend = "vtpm"
	b.out.Register = r
	if b.out.Alg != "sha256" {
		b.log.Warn("binding.alg is not used: a vTPM takes sha256", "alg", b.out.Alg)
		b.out.Alg = "sha256"
	}
	return nil
}

// hasTPM reports whether there is anything at the TPM's path. What cannot be looked at is there.
func (b *binder) hasTPM() bool {
	path, socket := strings.CutPrefix(b.config.VTPM.Device, "unix://")
	if !socket {
		path = filepath.Join("/", b.guest.root, path)
	}
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// conclude says what the parts that were found amount to.
func (b *binder) conclude() {
	trusted := b.config.VTPM.Trust != "" && b.out.Register != nil
	b.out.Open = !b.mustBind() && b.out.Field == nil && !trusted && b.out.Denied == nil
	b.out.Strict = !b.out.Open
	switch {
	case b.out.Open:
		b.log.Warn("UNPROTECTED: no hardware vouches for the policy", "mode", b.config.Mode, "note", b.out.Facts.Note)
	case b.out.Denied == nil:
		b.out.Facts.Mode = "required"
		b.out.Facts.Binding = "policy"
		if b.out.Initdata != nil {
			b.out.Facts.Binding = "initdata"
		}
	}
	b.out.Update = b.config.PolicyUpdate != "never" && b.out.Register != nil
	if b.config.PolicyUpdate != "never" && !b.out.Update {
		b.log.Warn("binding.policy_update is not used: there is no register to extend", "policy_update", b.config.PolicyUpdate)
	}
	if b.config.PolicyUpdate == "narrow" {
		known := policytext.DigestOf([]byte(rules.Text()))
		b.out.Narrow = func(current, next []byte) error { return narrow.Check(current, next, known) }
	}
	b.log.Info("binding", "mode", b.out.Facts.Mode, "backend", b.out.Facts.Backend, "binding", b.out.Facts.Binding, "note", b.out.Facts.Note)
}

// recorder writes comparisons with the launch field into the event log.
type recorder struct {
	journal *measure.Journal
	field   hostdata.Field
}

func (r *recorder) Record(e measure.Event, match bool) error {
	_, err := r.journal.Record(measure.Comparison{Event: e, Field: r.field.Name, Value: slices.Clone(r.field.Value), Match: match})
	return err
}
