// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	tdxabi "github.com/google/go-tdx-guest/client/linuxabi"
)

// pathMRConfigID is the measurement of Linux 6.16 and newer: 48 raw bytes
// (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest).
const pathMRConfigID = "/sys/devices/virtual/misc/tdx_guest/measurements/mrconfigid"

// Offsets in TDREPORT_STRUCT (Intel TDX module ABI, 348551): REPORTMACSTRUCT, then TEE_TCB_INFO, then TDINFO_STRUCT.
const (
	tdxType       = 0   // 0x81
	tdxSubtype    = 1   // 0
	tdxVersion    = 2   // 0, or 1 with service TDs bound
	tdxInfoHash   = 80  // TEE_INFO_HASH, 48 bytes, SHA-384 of TDINFO_STRUCT
	tdxReportData = 128 // 64 bytes
	tdxInfo       = 512 // TDINFO_STRUCT, 512 bytes; begins with ATTRIBUTES
	tdxMRConfigID = 576 // 48 bytes

	tdxTypeTDX      = 0x81
	tdxMaxVersion   = 1
	tdxAttributeTUD = 0xff // ATTRIBUTES bits 7:0, "TD under debug"; bit 0 is DEBUG

	tdxAttributeMigratable = 1 << 29 // by a migration TD that the host binds
)

// readTDX takes MRCONFIGID from a TDREPORT, and from the kernel's measurement
// file only where there is no device. Where there are both they must agree.
func readTDX(opts Options) (Field, error) {
	device, err := opts.System.open(pathTDX)
	if errors.Is(err, fs.ErrNotExist) {
		return readMeasurement(opts)
	}
	if err != nil {
		return Field{}, err
	}
	defer device.Close()

	nonce := newNonce()
	request := &tdxabi.TdxReportReq{ReportData: nonce}
	if _, err := device.Ioctl(tdxabi.IocTdxGetReport, request); err != nil {
		return Field{}, fmt.Errorf("TDX_CMD_GET_REPORT0: %w", err)
	}
	field, err := parseTDREPORT(request.TdReport[:], nonce)
	if err != nil {
		return Field{}, err
	}
	switch value, err := opts.System.measurement(); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Field{}, err
	case !bytes.Equal(value, field.Value):
		return Field{}, fmt.Errorf("%w: MRCONFIGID differs from the kernel's measurement", ErrReport)
	}
	return opts.admit(field)
}

// readMeasurement takes the field from sysfs. That does not tell whether the
// guest may be debugged, so it must be assumed that it may.
func readMeasurement(opts Options) (Field, error) {
	value, err := opts.System.measurement()
	if err != nil {
		return Field{}, err
	}
	field := Field{Kind: TDX, Name: TDX.field(), Value: value, Source: SourceSysfs, Debug: true}
	if !opts.AllowDebug {
		return Field{}, fmt.Errorf("%s is missing and sysfs does not show the DEBUG attribute: %w", pathTDX, ErrDebug)
	}
	return opts.admit(field)
}

func (s System) measurement() ([]byte, error) {
	value, err := s.readFile(pathMRConfigID, MRConfigIDSize)
	if err != nil {
		return nil, err
	}
	if len(value) != MRConfigIDSize {
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrReport, pathMRConfigID, len(value), MRConfigIDSize)
	}
	return value, nil
}

// parseTDREPORT takes the field from a report that must have been made for
// nonce. Failures are ErrReport; DEBUG and zero are left to the caller.
func parseTDREPORT(report []byte, nonce [64]byte) (Field, error) {
	if len(report) != tdxabi.TdReportSize {
		return Field{}, fmt.Errorf("%w: %d bytes, want %d", ErrReport, len(report), tdxabi.TdReportSize)
	}
	if report[tdxType] != tdxTypeTDX || report[tdxSubtype] != 0 || report[tdxVersion] > tdxMaxVersion {
		return Field{}, fmt.Errorf("%w: type 0x%x, subtype %d, version %d, want 0x%x, 0, at most %d",
			ErrReport, report[tdxType], report[tdxSubtype], report[tdxVersion], tdxTypeTDX, tdxMaxVersion)
	}
	if !bytes.Equal(report[tdxReportData:][:len(nonce)], nonce[:]) {
		return Field{}, fmt.Errorf("%w: REPORTDATA is not the nonce", ErrReport)
	}
	hash := sha512.Sum384(report[tdxInfo:])
	if !bytes.Equal(report[tdxInfoHash:][:len(hash)], hash[:]) {
		return Field{}, fmt.Errorf("%w: TEE_INFO_HASH is not the hash of TDINFO", ErrReport)
	}
	return Field{
		Kind:    TDX,
		Name:    TDX.field(),
		Value:   bytes.Clone(report[tdxMRConfigID:][:MRConfigIDSize]),
		Source:  SourceDevice,
		Version: uint32(report[tdxVersion]),
		Debug:   binary.LittleEndian.Uint64(report[tdxInfo:])&(tdxAttributeTUD|tdxAttributeMigratable) != 0,
	}, nil
}
