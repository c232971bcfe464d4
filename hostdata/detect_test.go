// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

func TestDetect(t *testing.T) {
	snp := hostdatatest.Guest{SNP: &hostdatatest.SNP{}}
	tdx := hostdatatest.Guest{TDX: &hostdatatest.TDX{}}
	const (
		vmpl      = "sys/devices/system/cpu/sev"
		platform  = "sys/bus/platform/devices/sev-guest"
		snpClass  = "sys/class/misc/sev-guest"
		snpNode   = "dev/sev-guest"
		tdxNode   = "dev/tdx_guest"
		tdxClass  = "sys/class/misc/tdx_guest"
		tdxSysfs  = "sys/devices/virtual/misc/tdx_guest"
		cpuinfo   = "proc/cpuinfo"
		cpus      = "sys/devices/system/cpu"
		noReading = "field-read-failed"
	)
	tests := []struct {
		name   string
		guest  hostdatatest.Guest
		remove []string
		want   hostdata.Kind
		reason string
	}{
		{"ordinary machine", hostdatatest.Guest{}, nil, hostdata.None, ""},
		{"SNP", snp, nil, hostdata.SNP, ""},
		{"SNP on an older kernel", snp, []string{vmpl}, hostdata.SNP, ""},
		{"SNP by its node alone", snp, []string{vmpl, platform, snpClass}, hostdata.SNP, ""},
		{"SNP without its node", snp, []string{snpNode}, "", noReading},
		{"SNP with its level alone", snp, []string{platform, snpClass, snpNode}, "", noReading},
		{"SNP with its platform device alone", snp, []string{vmpl, snpClass, snpNode}, "", noReading},
		{"SNP with its class device alone", snp, []string{vmpl, platform, snpNode}, "", noReading},
		{"TDX", tdx, nil, hostdata.TDX, ""},
		{"TDX without a node, with measurements", tdx, []string{tdxNode}, hostdata.TDX, ""},
		{"TDX without node and measurements", tdx, []string{tdxNode, tdxSysfs}, "", noReading},
		{"TDX with its CPU flag alone", tdx, []string{tdxNode, tdxSysfs, tdxClass}, "", noReading},
		{"both", hostdatatest.Guest{SNP: &hostdatatest.SNP{}, TDX: &hostdatatest.TDX{}}, nil, "", "no-backend"},
		{"SNP and the CPU flag of TDX", hostdatatest.Guest{SNP: &hostdatatest.SNP{}, TDX: &hostdatatest.TDX{}}, []string{tdxNode, tdxSysfs, tdxClass}, "", "no-backend"},
		{"no /proc", hostdatatest.Guest{}, []string{"proc"}, "", noReading},
		{"no cpuinfo", hostdatatest.Guest{}, []string{cpuinfo}, "", noReading},
		{"no /sys", hostdatatest.Guest{}, []string{"sys"}, "", noReading},
		{"no CPUs in /sys", tdx, []string{cpus}, "", noReading},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sys := system(t, tt.guest)
			for _, path := range tt.remove {
				remove(t, filepath.Join(sys.Root, path))
			}
			kind, err := hostdata.Detect(t.Context(), sys)
			wantReason(t, err, tt.reason)
			if kind != tt.want {
				t.Errorf("kind %q, want %q", kind, tt.want)
			}
			for _, device := range []interface{ Calls() int }{tt.guest.SNP, tt.guest.TDX} {
				if d, ok := device.(*hostdatatest.SNP); ok && d != nil && d.Calls() > 0 {
					t.Error("detection made a request to the security processor")
				}
			}
		})
	}
}

// A place that cannot be looked at is not an empty place.
func TestDetectErrorIsNotAbsence(t *testing.T) {
	sys := system(t, hostdatatest.Guest{})
	// A file where a directory should be makes every path below it ENOTDIR.
	if err := os.WriteFile(filepath.Join(sys.Root, "sys/class"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kind, err := hostdata.Detect(t.Context(), sys)
	wantReason(t, err, "field-read-failed")
	if kind != hostdata.None || !errors.Is(err, hostdata.ErrRead) {
		t.Errorf("kind %q, error %v", kind, err)
	}
}

func TestDetectRefusesCPUInfoWithoutFlags(t *testing.T) {
	sys := system(t, hostdatatest.Guest{})
	if err := os.WriteFile(filepath.Join(sys.Root, "proc/cpuinfo"), []byte("processor : 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := hostdata.Detect(t.Context(), sys)
	wantReason(t, err, "field-read-failed")
}

// A flag that only contains the word, or stands in another line, is no sign.
func TestDetectTakesWholeFlagsOnly(t *testing.T) {
	sys := system(t, hostdatatest.Guest{})
	text := "model name : tdx_guest\nflags : fpu xtdx_guest tdx_guest_x\n"
	if err := os.WriteFile(filepath.Join(sys.Root, "proc/cpuinfo"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kind, err := hostdata.Detect(t.Context(), sys)
	if kind != hostdata.None || err != nil {
		t.Errorf("kind %q, error %v", kind, err)
	}
}

func TestDetectEndsWithItsContext(t *testing.T) {
	sys := system(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{}})
	hang := make(chan struct{})
	defer close(hang)
	sys.Open = func(string) (hostdata.Device, error) { <-hang; return nil, os.ErrNotExist }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	kind, err := hostdata.Detect(ctx, sys)
	wantReason(t, err, "field-read-failed")
	if kind != hostdata.None || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("kind %q, error %v", kind, err)
	}
}

// This machine, whatever it is: the default system must be usable as it is.
func TestDetectHere(t *testing.T) {
	kind, err := hostdata.Detect(t.Context(), hostdata.System{})
	t.Logf("this machine: %q, %v", kind, err)
	if err != nil && hostdata.Reason(err) == "" {
		t.Errorf("error %v has no reason", err)
	}
}
