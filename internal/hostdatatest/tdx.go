// SPDX-License-Identifier: Apache-2.0

package hostdatatest

import (
	"crypto/sha512"
	"sync/atomic"
	"syscall"

	tdxabi "github.com/google/go-tdx-guest/client/linuxabi"
)

// TDX is a /dev/tdx_guest. The zero value is a guest with MRCONFIGID of zeros. Set the fields before the first request.
type TDX struct {
	MRConfigID [48]byte
	// Version is REPORTTYPE.VERSION.
	Version byte
	// Attributes are the low 8 bits of the TD's ATTRIBUTES; bit 0 is DEBUG.
	Attributes byte
	// Edit changes the report before its hashes are made, EditHashed after.
	Edit, EditHashed func(report []byte)
	// Errno, when not 0, fails the request.
	Errno syscall.Errno
	// Hang, when not nil, holds every request until it is closed.
	Hang <-chan struct{}

	calls  atomic.Int64
	closed atomic.Int64
}

// Calls returns how many requests reached the device.
func (d *TDX) Calls() int { return int(d.calls.Load()) }

// Closed returns how often the device was closed.
func (d *TDX) Closed() int { return int(d.closed.Load()) }

// Close implements hostdata.Device.
func (d *TDX) Close() error { d.closed.Add(1); return nil }

// Ioctl implements hostdata.Device: TDX_CMD_GET_REPORT0, and ENOTTY for all else.
func (d *TDX) Ioctl(command uintptr, argument any) (uintptr, error) {
	d.calls.Add(1)
	request, ok := argument.(*tdxabi.TdxReportReq)
	if !ok || command != 0xC4405401 {
		return 0, syscall.ENOTTY
	}
	if d.Hang != nil {
		<-d.Hang
	}
	if d.Errno != 0 {
		return 0, d.Errno
	}
	copy(request.TdReport[:], d.Report(request.ReportData))
	return 0, nil
}

// Report returns the 1024 bytes of a TDREPORT for nonce, hashes right.
func (d *TDX) Report(nonce [64]byte) []byte {
	r := make([]byte, 1024)
	r[0], r[2] = 0x81, d.Version
	copy(r[128:192], nonce[:])
	r[512] = d.Attributes
	r[520] = 0xe7 // XFAM
	copy(r[576:624], d.MRConfigID[:])
	if d.Edit != nil {
		d.Edit(r)
	}
	tcb, info := sha512.Sum384(r[256:495]), sha512.Sum384(r[512:1024])
	copy(r[32:80], tcb[:])
	copy(r[80:128], info[:])
	if d.EditHashed != nil {
		d.EditHashed(r)
	}
	return r
}
