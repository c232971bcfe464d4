// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

// system makes the guest's files or ends the test.
func system(t testing.TB, g hostdatatest.Guest) hostdata.System {
	t.Helper()
	g.Root = t.TempDir()
	sys, err := g.System()
	if err != nil {
		t.Fatal(err)
	}
	return sys
}

func hostData(policy string) [32]byte { return sha256.Sum256([]byte(policy)) }

func mrConfigID(policy string) [48]byte { return sha512.Sum384([]byte(policy)) }

// wantReason fails the test unless err has the reason, "" meaning no error.
func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if (err == nil) != (reason == "") || hostdata.Reason(err) != reason {
		t.Fatalf("error %v has reason %q, want %q", err, hostdata.Reason(err), reason)
	}
}

func TestReadSNP(t *testing.T) {
	set := func(offset int, value uint32) func([]byte) {
		return func(r []byte) { binary.LittleEndian.PutUint32(r[offset:], value) }
	}
	tests := []struct {
		name   string
		device *hostdatatest.SNP
		reason string
		is     error
	}{
		{name: "version 2", device: &hostdatatest.SNP{Version: 2}},
		{name: "version 3", device: &hostdatatest.SNP{Version: 3}},
		{name: "version 4", device: &hostdatatest.SNP{Version: 4}},
		{name: "version 5", device: &hostdatatest.SNP{Version: 5}},
		{name: "below an SVSM", device: &hostdatatest.SNP{VMPL: 2}},
		{name: "version 1", device: &hostdatatest.SNP{Version: 1}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "version 6", device: &hostdatatest.SNP{Version: 6}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "version 0", device: &hostdatatest.SNP{Edit: set(0, 0)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "report too short", device: &hostdatatest.SNP{Size: 1183}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "report too long", device: &hostdatatest.SNP{Size: 1185}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "report size beyond the buffer", device: &hostdatatest.SNP{Size: 1 << 31}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "first byte of the nonce wrong", device: &hostdatatest.SNP{Edit: flip(0x50)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "last byte of the nonce wrong", device: &hostdatatest.SNP{Edit: flip(0x8f)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "report of another VMPL", device: &hostdatatest.SNP{Edit: set(0x30, 1)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "report of a lower VMPL", device: &hostdatatest.SNP{VMPL: 2, Edit: set(0x30, 0)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "reserved policy bit clear", device: &hostdatatest.SNP{Edit: set(8, 0)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "unknown policy bit set", device: &hostdatatest.SNP{Policy: 1 << 26}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "DEBUG", device: &hostdatatest.SNP{Policy: hostdatatest.PolicyDebug}, reason: "debug-guest", is: hostdata.ErrDebug},
		{name: "a migration agent", device: &hostdatatest.SNP{Policy: hostdatatest.PolicyMigrateMA}, reason: "debug-guest", is: hostdata.ErrDebug},
		{name: "all zero", device: &hostdatatest.SNP{Edit: func(r []byte) { clear(r[0xC0:0xE0]) }}, reason: "field-zero", is: hostdata.ErrZero},
		{name: "firmware refuses", device: &hostdatatest.SNP{Status: 0x16}, reason: "field-read-failed", is: hostdata.ErrRead},
		{name: "unknown firmware status", device: &hostdatatest.SNP{Status: 0x99}, reason: "field-read-failed", is: hostdata.ErrRead},
		{name: "key gone", device: &hostdatatest.SNP{Errno: syscall.ENOTTY}, reason: "field-read-failed", is: syscall.ENOTTY},
		{name: "input/output error", device: &hostdatatest.SNP{Errno: syscall.EIO}, reason: "field-read-failed", is: syscall.EIO},
		{name: "no permission", device: &hostdatatest.SNP{Errno: syscall.EACCES}, reason: "field-read-failed", is: syscall.EACCES},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device := cmp.Or(tt.device, &hostdatatest.SNP{})
			device.HostData = hostData("policy")
			sys := system(t, hostdatatest.Guest{SNP: device})
			field, err := hostdata.Read(t.Context(), hostdata.SNP, hostdata.Options{System: sys})
			wantReason(t, err, tt.reason)
			if device.Calls() != 1 || device.Closed() != 1 {
				t.Errorf("%d requests and %d closes, want one each", device.Calls(), device.Closed())
			}
			if err != nil {
				if !errors.Is(err, tt.is) {
					t.Errorf("error %v is not %v", err, tt.is)
				}
				return
			}
			if field.Name != "hostdata" || field.VMPL != device.VMPL || !bytes.Equal(field.Value, device.HostData[:]) {
				t.Errorf("field %+v", field)
			}
			if device.Version != 0 && field.Version != device.Version {
				t.Errorf("version %d, want %d", field.Version, device.Version)
			}
		})
	}
}

// flip returns an edit that inverts the lowest bit of one byte.
func flip(offset int) func([]byte) {
	return func(r []byte) { r[offset] ^= 1 }
}

func TestReadTDX(t *testing.T) {
	tests := []struct {
		name    string
		device  *hostdatatest.TDX
		measure string // contents of the sysfs file instead of the right ones; "-" removes it
		reason  string
		is      error
	}{
		{name: "version 0"},
		{name: "version 1", device: &hostdatatest.TDX{Version: 1}},
		{name: "kernel without measurements", measure: "-"},
		{name: "version 2", device: &hostdatatest.TDX{Version: 2}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "type of SGX", device: &hostdatatest.TDX{EditHashed: func(r []byte) { r[0] = 0 }}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "unknown subtype", device: &hostdatatest.TDX{EditHashed: flip(1)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "first byte of the nonce wrong", device: &hostdatatest.TDX{EditHashed: flip(128)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "last byte of the nonce wrong", device: &hostdatatest.TDX{EditHashed: flip(191)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "hash of TDINFO wrong", device: &hostdatatest.TDX{EditHashed: flip(80)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "MRCONFIGID changed behind the hash", device: &hostdatatest.TDX{EditHashed: flip(576)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "last byte of TDINFO changed", device: &hostdatatest.TDX{EditHashed: flip(1023)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "sysfs says otherwise", device: &hostdatatest.TDX{Edit: flip(576)}, reason: "report-invalid", is: hostdata.ErrReport},
		{name: "sysfs is short", measure: "short", reason: "report-invalid", is: hostdata.ErrReport},
		{name: "sysfs is long", measure: string(make([]byte, 49)), reason: "field-read-failed", is: hostdata.ErrRead},
		{name: "DEBUG", device: &hostdatatest.TDX{Attributes: 1}, reason: "debug-guest", is: hostdata.ErrDebug},
		{name: "migratable", device: &hostdatatest.TDX{Edit: func(r []byte) { r[515] |= 0x20 }}, reason: "debug-guest", is: hostdata.ErrDebug},
		{name: "performance profiling", device: &hostdatatest.TDX{Attributes: 1 << 5}, reason: "debug-guest", is: hostdata.ErrDebug},
		{name: "all zero", device: &hostdatatest.TDX{Edit: func(r []byte) { clear(r[576:624]) }}, measure: string(make([]byte, 48)), reason: "field-zero", is: hostdata.ErrZero},
		{name: "input/output error", device: &hostdatatest.TDX{Errno: syscall.EIO}, reason: "field-read-failed", is: syscall.EIO},
		{name: "busy", device: &hostdatatest.TDX{Errno: syscall.EBUSY}, reason: "field-read-failed", is: syscall.EBUSY},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device := cmp.Or(tt.device, &hostdatatest.TDX{})
			device.MRConfigID = mrConfigID("policy")
			sys := system(t, hostdatatest.Guest{TDX: device})
			file := filepath.Join(sys.Root, "sys/devices/virtual/misc/tdx_guest/measurements/mrconfigid")
			switch tt.measure {
			case "":
			case "-":
				remove(t, file)
			default:
				if err := os.WriteFile(file, []byte(tt.measure), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			field, err := hostdata.Read(t.Context(), hostdata.TDX, hostdata.Options{System: sys})
			wantReason(t, err, tt.reason)
			if device.Calls() != 1 || device.Closed() != 1 {
				t.Errorf("%d requests and %d closes, want one each", device.Calls(), device.Closed())
			}
			if err != nil {
				if !errors.Is(err, tt.is) {
					t.Errorf("error %v is not %v", err, tt.is)
				}
				return
			}
			if field.Name != "mrconfigid" || field.Source != hostdata.SourceDevice || !bytes.Equal(field.Value, device.MRConfigID[:]) {
				t.Errorf("field %+v", field)
			}
		})
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadAllowsDebugOnlyWhenTold(t *testing.T) {
	guests := map[hostdata.Kind]hostdatatest.Guest{
		hostdata.SNP: {SNP: &hostdatatest.SNP{HostData: hostData("p"), Policy: hostdatatest.PolicyDebug}},
		hostdata.TDX: {TDX: &hostdatatest.TDX{MRConfigID: mrConfigID("p"), Attributes: 1}},
	}
	for kind, guest := range guests {
		t.Run(string(kind), func(t *testing.T) {
			opts := hostdata.Options{System: system(t, guest)}
			_, err := hostdata.Read(t.Context(), kind, opts)
			wantReason(t, err, "debug-guest")
			opts.AllowDebug = true
			field, err := hostdata.Read(t.Context(), kind, opts)
			wantReason(t, err, "")
			if !field.Debug {
				t.Error("the field does not say that the guest may be debugged")
			}
		})
	}
}

func TestReadTDXFromSysfsCannotRuleOutDebug(t *testing.T) {
	guest := hostdatatest.Guest{TDX: &hostdatatest.TDX{MRConfigID: mrConfigID("p")}}
	sys := system(t, guest)
	remove(t, filepath.Join(sys.Root, "dev/tdx_guest"))
	opts := hostdata.Options{System: sys}
	_, err := hostdata.Read(t.Context(), hostdata.TDX, opts)
	wantReason(t, err, "debug-guest")
	opts.AllowDebug = true
	field, err := hostdata.Read(t.Context(), hostdata.TDX, opts)
	wantReason(t, err, "")
	want := mrConfigID("p")
	if field.Source != hostdata.SourceSysfs || !bytes.Equal(field.Value, want[:]) {
		t.Errorf("field %+v", field)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	guests := map[hostdata.Kind]hostdatatest.Guest{
		hostdata.SNP: {SNP: &hostdatatest.SNP{HostData: hostData("p"), Hang: hang}},
		hostdata.TDX: {TDX: &hostdatatest.TDX{MRConfigID: mrConfigID("p"), Hang: hang}},
	}
	for kind, guest := range guests {
		t.Run(string(kind), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := hostdata.Read(ctx, kind, hostdata.Options{System: system(t, guest)})
			wantReason(t, err, "field-read-failed")
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, hostdata.ErrRead) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestReadNothing(t *testing.T) {
	for _, kind := range []hostdata.Kind{hostdata.None, "vtpm"} {
		_, err := hostdata.Read(t.Context(), kind, hostdata.Options{System: system(t, hostdatatest.Guest{})})
		wantReason(t, err, "no-backend")
	}
	_, err := hostdata.Read(t.Context(), hostdata.SNP, hostdata.Options{System: system(t, hostdatatest.Guest{})})
	wantReason(t, err, "field-read-failed")
	_, err = hostdata.Read(t.Context(), hostdata.TDX, hostdata.Options{System: system(t, hostdatatest.Guest{})})
	wantReason(t, err, "field-read-failed")
}

// A kernel that lost its key answers nothing more: a second read must not turn into "unsupported".
func TestReadSNPAfterFailureStaysFailed(t *testing.T) {
	device := &hostdatatest.SNP{HostData: hostData("p"), Errno: syscall.EIO}
	opts := hostdata.Options{System: system(t, hostdatatest.Guest{SNP: device})}
	for range 2 {
		_, err := hostdata.Read(t.Context(), hostdata.SNP, opts)
		wantReason(t, err, "field-read-failed")
	}
	if kind, err := hostdata.Detect(t.Context(), opts.System); kind != hostdata.SNP || err != nil {
		t.Errorf("Detect: %q, %v", kind, err)
	}
}
