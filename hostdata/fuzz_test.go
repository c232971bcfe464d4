// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"testing"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

func FuzzSNPReport(f *testing.F) {
	var nonce [64]byte
	for version := uint32(1); version <= 6; version++ {
		device := &hostdatatest.SNP{HostData: hostData("p"), Version: version}
		f.Add(device.Report(nonce, 0), uint32(0))
	}
	f.Add((&hostdatatest.SNP{Policy: hostdatatest.PolicyDebug}).Report(nonce, 3), uint32(3))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, report []byte, vmpl uint32) {
		checkSNP(t, report, vmpl)
		// Whatever else it holds, a report with these five right is taken.
		if len(report) < 1184 {
			return
		}
		report = bytes.Clone(report[:1184])
		binary.LittleEndian.PutUint32(report[0x00:], 2+vmpl%4)
		binary.LittleEndian.PutUint64(report[0x08:], binary.LittleEndian.Uint64(report[0x08:])&(1<<26-1)|1<<17)
		binary.LittleEndian.PutUint32(report[0x30:], vmpl)
		clear(report[0x50:0x90])
		if !checkSNP(t, report, vmpl) {
			t.Fatalf("not taken: %x", report)
		}
	})
}

// checkSNP reports whether the report is taken, and fails the test unless it is then what it must be.
func checkSNP(t *testing.T, report []byte, vmpl uint32) bool {
	t.Helper()
	var nonce [64]byte
	field, err := hostdata.ParseSNP(report, nonce, vmpl)
	if err != nil {
		wantReason(t, err, "report-invalid")
		return false
	}
	if len(report) != 1184 || report[0] < 2 || report[0] > 5 || field.VMPL != vmpl ||
		!bytes.Equal(report[0x50:0x90], nonce[:]) || binary.LittleEndian.Uint32(report[0x30:]) != vmpl ||
		!bytes.Equal(field.Value, report[0xC0:0xE0]) || field.Debug != (report[0x0A]&0x0C != 0) {
		t.Fatalf("field %+v of report %x", field, report)
	}
	return true
}

func FuzzTDREPORT(f *testing.F) {
	var nonce [64]byte
	for version := byte(0); version <= 2; version++ {
		device := &hostdatatest.TDX{MRConfigID: mrConfigID("p"), Version: version}
		f.Add(device.Report(nonce))
	}
	f.Add((&hostdatatest.TDX{Attributes: 1}).Report(nonce))
	f.Add([]byte{0x81})
	f.Fuzz(func(t *testing.T, report []byte) {
		checkTDX(t, report)
		// Whatever else it holds, a report with these four right is taken.
		if len(report) < 1024 {
			return
		}
		report = bytes.Clone(report[:1024])
		report[0], report[1], report[2] = 0x81, 0, report[2]&1
		clear(report[128:192])
		hash := sha512.Sum384(report[512:])
		copy(report[80:], hash[:])
		if !checkTDX(t, report) {
			t.Fatalf("not taken: %x", report)
		}
	})
}

// checkTDX reports whether the report is taken, and fails the test unless it is then what it must be.
func checkTDX(t *testing.T, report []byte) bool {
	t.Helper()
	var nonce [64]byte
	field, err := hostdata.ParseTDREPORT(report, nonce)
	if err != nil {
		wantReason(t, err, "report-invalid")
		return false
	}
	if len(report) != 1024 || report[0] != 0x81 || !bytes.Equal(report[128:192], nonce[:]) ||
		!bytes.Equal(field.Value, report[576:624]) || field.Debug != (report[512] != 0 || report[515]&0x20 != 0) {
		t.Fatalf("field %+v of report %x", field, report)
	}
	return true
}
