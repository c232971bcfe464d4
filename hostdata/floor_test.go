// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

// items makes configfs items as the kernel does: a new directory comes with its attributes and goes with them.
type items struct {
	floor    string
	mkdirErr error
	rmdirErr error
	made     []string
}

func (c *items) Mkdir(path string) error {
	if c.mkdirErr != nil {
		return c.mkdirErr
	}
	c.made = append(c.made, path)
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if c.floor == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(path, "privlevel_floor"), []byte(c.floor), 0o400)
}

func (c *items) Rmdir(path string) error {
	if c.rmdirErr != nil {
		return c.rmdirErr
	}
	return os.RemoveAll(path)
}

func TestReadAsksForTheFloor(t *testing.T) {
	tests := []struct {
		name   string
		device *hostdatatest.SNP
		vmpl   string // contents of sev/vmpl; "" removes it
		items  *items // nil: no configfs
		want   uint32
		reason string
	}{
		{name: "sysfs", device: &hostdatatest.SNP{VMPL: 2}, vmpl: "2\n", want: 2},
		{name: "sysfs before configfs", device: &hostdatatest.SNP{VMPL: 1}, vmpl: "1", items: &items{floor: "3"}, want: 1},
		{name: "configfs", device: &hostdatatest.SNP{VMPL: 3}, items: &items{floor: "3\n"}, want: 3},
		{name: "configfs without a floor", items: &items{}, want: 0},
		{name: "old kernel", want: 0},
		{name: "old kernel below an SVSM", device: &hostdatatest.SNP{VMPL: 2}, reason: "field-read-failed"},
		{name: "sysfs with no number", vmpl: "x", reason: "field-read-failed"},
		{name: "sysfs out of range", vmpl: "4\n", reason: "field-read-failed"},
		{name: "sysfs too long", vmpl: "00000000000000000000000000000000", reason: "field-read-failed"},
		{name: "configfs with no number", items: &items{floor: "-1"}, reason: "field-read-failed"},
		{name: "configfs without a provider", items: &items{mkdirErr: syscall.ENXIO}, reason: "field-read-failed"},
		{name: "configfs item that stays", items: &items{floor: "0", rmdirErr: syscall.EBUSY}, reason: "field-read-failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device := cmp.Or(tt.device, &hostdatatest.SNP{})
			device.HostData = hostData("p")
			sys := system(t, hostdatatest.Guest{SNP: device})
			vmpl := filepath.Join(sys.Root, "sys/devices/system/cpu/sev/vmpl")
			remove(t, vmpl)
			if tt.vmpl != "" {
				if err := os.WriteFile(vmpl, []byte(tt.vmpl), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			reports := filepath.Join(sys.Root, "sys/kernel/config/tsm/report")
			if tt.items != nil {
				if err := os.MkdirAll(reports, 0o700); err != nil {
					t.Fatal(err)
				}
				sys = sys.WithConfigfs(tt.items)
			}
			field, err := hostdata.Read(t.Context(), hostdata.SNP, hostdata.Options{System: sys})
			wantReason(t, err, tt.reason)
			if err == nil && field.VMPL != tt.want {
				t.Errorf("VMPL %d, want %d", field.VMPL, tt.want)
			}
			left, readErr := os.ReadDir(reports)
			if tt.items != nil && tt.items.rmdirErr == nil && (readErr != nil || len(left) > 0) {
				t.Errorf("left behind %v, %v", left, readErr)
			}
		})
	}
}

func TestReadDoesNotAskWithoutTheFloor(t *testing.T) {
	device := &hostdatatest.SNP{HostData: hostData("p")}
	sys := system(t, hostdatatest.Guest{SNP: device})
	remove(t, filepath.Join(sys.Root, "sys/devices/system/cpu/sev/vmpl"))
	if err := os.MkdirAll(filepath.Join(sys.Root, "sys/devices/system/cpu/sev/vmpl"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := hostdata.Read(t.Context(), hostdata.SNP, hostdata.Options{System: sys})
	wantReason(t, err, "field-read-failed")
	if !errors.Is(err, hostdata.ErrRead) || device.Calls() != 0 {
		t.Errorf("error %v after %d requests", err, device.Calls())
	}
}
