// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/client"
	snpabi "github.com/google/go-sev-guest/client/linuxabi"
	snptest "github.com/google/go-sev-guest/testing"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

// The library's device and ours can stand in for each other.
var (
	_ hostdata.Device = (*client.LinuxDevice)(nil)
	_ hostdata.Device = (*snptest.Device)(nil)
)

// libraryDevice is go-sev-guest's fake. That answers only nonces it was made with, so it is made when the request is there.
type libraryDevice struct {
	t        *testing.T
	signer   *snptest.AmdSigner
	hostData [32]byte
	version  uint32
	debug    bool
	firmware abi.SevFirmwareStatus
}

func (d *libraryDevice) Close() error { return nil }

func (d *libraryDevice) Ioctl(command uintptr, argument any) (uintptr, error) {
	request := argument.(*snpabi.SnpUserGuestRequest)
	nonce := request.ReqData.(*snpabi.SnpReportReqABI).ReportData
	report := snptest.CreateRawReport(&snptest.TestReportOptions{
		ReportData: nonce[:],
		SignerInfo: abi.SignerInfo{SigningKey: abi.VcekReportSigner},
		Version:    d.version,
		FMS:        0x00A00F11,
	})
	copy(report[0xC0:0xE0], d.hostData[:])
	if !d.debug {
		report[0x0A] &^= 0x08
	}
	device, err := snptest.TcDevice(
		[]snptest.TestCase{{Input: nonce, Output: report, FwErr: d.firmware}},
		&snptest.DeviceOptions{Signer: d.signer, Product: abi.DefaultSevProduct()})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := device.Open(""); err != nil {
		d.t.Fatal(err)
	}
	defer device.Close()
	result, err := device.Ioctl(command, argument)
	// The fake leaves out the size, which the firmware gives.
	request.RespData.(*snpabi.SnpReportRespABI).ReportSize = abi.ReportSize
	return result, err
}

func TestReadFromTheLibrarysDevice(t *testing.T) {
	signer, err := snptest.DefaultTestOnlyCertChain(snptest.GetProductName(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		device libraryDevice
		reason string
	}{
		{"version 2", libraryDevice{version: 2}, ""},
		{"version 5", libraryDevice{version: 5}, ""},
		{"version 6", libraryDevice{version: 6}, "report-invalid"},
		{"DEBUG", libraryDevice{version: 3, debug: true}, "debug-guest"},
		{"firmware error", libraryDevice{version: 3, firmware: 0x16}, "field-read-failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device := tt.device
			device.t, device.signer, device.hostData = t, signer, hostData("policy")
			sys := system(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{}})
			sys.Open = func(string) (hostdata.Device, error) { return &device, nil }
			field, err := hostdata.Read(t.Context(), hostdata.SNP, hostdata.Options{System: sys})
			wantReason(t, err, tt.reason)
			if err == nil && !bytes.Equal(field.Value, device.hostData[:]) {
				t.Errorf("value %x", field.Value)
			}
		})
	}
}

// The library reads the reports of our fake as it reads those of the hardware.
func TestTheLibraryReadsOurReports(t *testing.T) {
	device := &hostdatatest.SNP{HostData: hostData("policy"), VMPL: 1}
	for version := uint32(2); version <= 5; version++ {
		device.Version = version
		nonce := [64]byte{1, 2, 3}
		report := device.Report(nonce, 1)
		if err := abi.ValidateReportFormat(report); err != nil {
			t.Fatal(err)
		}
		got, err := abi.ReportToProto(report)
		if err != nil {
			t.Fatal(err)
		}
		if got.Version != version || got.Vmpl != 1 || !bytes.Equal(got.HostData, device.HostData[:]) || !bytes.Equal(got.ReportData, nonce[:]) {
			t.Errorf("version %d: %v", version, got)
		}
	}
}

// A report of real hardware, which go-sev-guest carries for its own tests.
func TestReportOfRealHardware(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/google/go-sev-guest/verify").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "attestation.bin"))
	if err != nil || len(data) < abi.ReportSize {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	report := data[:abi.ReportSize]
	want, err := abi.ReportToProto(report)
	if err != nil {
		t.Fatal(err)
	}
	field, err := hostdata.ParseSNP(report, [64]byte(report[0x50:0x90]), binary.LittleEndian.Uint32(report[0x30:]))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(field.Value, want.HostData) || field.Version != want.Version || field.VMPL != want.Vmpl {
		t.Errorf("field %+v, the library reads %x, version %d", field, want.HostData, want.Version)
	}
}
