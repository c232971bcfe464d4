// SPDX-License-Identifier: Apache-2.0

package hostdatatest

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"

	snpabi "github.com/google/go-sev-guest/client/linuxabi"
)

const snpReportSize = 1184

// Bits of POLICY in an SNP report.
const (
	PolicyDebug     = 1 << 19
	PolicyMigrateMA = 1 << 18 // a migration agent may be there
	policyReserved  = 1 << 17 // must be 1
	policySMT       = 1 << 16
)

// SNP is a /dev/sev-guest. The zero value is a guest at VMPL 0 with a version 3
// report and HOST_DATA of zeros. Set the fields before the first request.
type SNP struct {
	HostData [32]byte
	Version  uint32 // of the report; 0 means 3
	VMPL     uint32 // the guest kernel's level; requests below it are refused
	Policy   uint64 // added to the bits that every guest has
	// Edit changes the report before it is handed out, when not nil.
	Edit func(report []byte)
	// Size is what the response gives as the report's size; 0 means 1184.
	Size uint32
	// Status, when not 0, is the security processor's status instead of a report.
	Status uint32
	// Errno, when not 0, fails the request. As in the kernel, all later ones fail with ENOTTY.
	Errno syscall.Errno
	// Hang, when not nil, holds every request until it is closed.
	Hang <-chan struct{}

	calls  atomic.Int64
	wiped  atomic.Bool
	closed atomic.Int64
}

// Calls returns how many requests reached the device.
func (d *SNP) Calls() int { return int(d.calls.Load()) }

// Closed returns how often the device was closed.
func (d *SNP) Closed() int { return int(d.closed.Load()) }

// Close implements hostdata.Device.
func (d *SNP) Close() error { d.closed.Add(1); return nil }

// Ioctl implements hostdata.Device: SNP_GET_REPORT, and ENOTTY for all else.
func (d *SNP) Ioctl(command uintptr, argument any) (uintptr, error) {
	d.calls.Add(1)
	request, ok := argument.(*snpabi.SnpUserGuestRequest)
	if !ok || command != 0xC0205300 || d.wiped.Load() {
		return 0, syscall.ENOTTY
	}
	if d.Hang != nil {
		<-d.Hang
	}
	if d.Errno != 0 {
		d.wiped.Store(true)
		return 0, d.Errno
	}
	in, ok := request.ReqData.(*snpabi.SnpReportReqABI)
	if !ok {
		return 0, syscall.EINVAL
	}
	out, ok := request.RespData.(*snpabi.SnpReportRespABI)
	if !ok {
		return 0, syscall.EINVAL
	}
	*out = snpabi.SnpReportRespABI{}
	switch {
	case d.Status != 0:
		out.Status = d.Status
	case in.Vmpl < d.VMPL || in.Vmpl > 3:
		out.Status = 0x16 // invalid parameters
	default:
		out.ReportSize = snpReportSize
		if d.Size != 0 {
			out.ReportSize = d.Size
		}
		copy(out.Data[:], d.Report(in.ReportData, in.Vmpl))
	}
	if err := out.Finish(nil); err != nil {
		return 0, fmt.Errorf("sev-guest: %w", err)
	}
	return 0, nil
}

// Report returns the 1184 bytes of a report for nonce and vmpl.
func (d *SNP) Report(nonce [64]byte, vmpl uint32) []byte {
	version := d.Version
	if version == 0 {
		version = 3
	}
	r := make([]byte, snpReportSize)
	binary.LittleEndian.PutUint32(r[0x00:], version)
	binary.LittleEndian.PutUint64(r[0x08:], policyReserved|policySMT|d.Policy)
	binary.LittleEndian.PutUint32(r[0x30:], vmpl)
	binary.LittleEndian.PutUint32(r[0x34:], 1) // ECDSA P-384 with SHA-384
	copy(r[0x50:0x90], nonce[:])
	copy(r[0xC0:0xE0], d.HostData[:])
	if version >= 3 {
		r[0x188], r[0x189] = 0x19, 0x01 // CPUID family and model
	}
	if d.Edit != nil {
		d.Edit(r)
	}
	return r
}
