// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	snpabi "github.com/google/go-sev-guest/client/linuxabi"
)

// Offsets in ATTESTATION_REPORT (SEV-SNP firmware ABI, 56860, table "Attestation
// Report"). They are the same in versions 2 to 5. Integers are little-endian.
const (
	snpVersion    = 0x00 // 4 bytes
	snpPolicy     = 0x08 // 8 bytes
	snpVMPL       = 0x30 // 4 bytes
	snpReportData = 0x50 // 64 bytes
	snpHostData   = 0xC0 // 32 bytes
)

// readSNP asks the security processor for one report at the guest's own privilege level and takes HOST_DATA from it.
func readSNP(opts Options) (Field, error) {
	vmpl, err := opts.System.floor()
	if err != nil {
		return Field{}, err
	}
	device, err := opts.System.open(pathSNP)
	if err != nil {
		return Field{}, err
	}
	defer device.Close()

	nonce := newNonce()
	report, err := requestReport(device, nonce, vmpl)
	if err != nil {
		return Field{}, err
	}
	field, err := parseSNP(report, nonce, vmpl)
	if err != nil {
		return Field{}, err
	}
	return opts.admit(field)
}

// requestReport makes one SNP_GET_REPORT and returns the report's bytes.
func requestReport(device Device, nonce [64]byte, vmpl uint32) ([]byte, error) {
	response := &snpabi.SnpReportRespABI{}
	request := &snpabi.SnpUserGuestRequest{
		ReqData:  &snpabi.SnpReportReqABI{ReportData: nonce, Vmpl: vmpl},
		RespData: response,
	}
	if _, err := device.Ioctl(uintptr(snpabi.IocSnpGetReport), request); err != nil {
		return nil, fmt.Errorf("SNP_GET_REPORT: %w", err)
	}
	if err := response.Finish(nil); err != nil {
		return nil, fmt.Errorf("SNP_GET_REPORT: %w", err)
	}
	if response.ReportSize != abi.ReportSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrReport, response.ReportSize, abi.ReportSize)
	}
	return response.Data[:abi.ReportSize], nil
}

// parseSNP takes the field from a report that must have been made for nonce and
// vmpl. Failures are ErrReport; DEBUG and zero are left to the caller.
func parseSNP(report []byte, nonce [64]byte, vmpl uint32) (Field, error) {
	if len(report) != abi.ReportSize {
		return Field{}, fmt.Errorf("%w: %d bytes, want %d", ErrReport, len(report), abi.ReportSize)
	}
	if err := abi.ValidateReportFormat(report); err != nil {
		return Field{}, fmt.Errorf("%w: %w", ErrReport, err)
	}
	policy, err := abi.ParseSnpPolicy(binary.LittleEndian.Uint64(report[snpPolicy:]))
	if err != nil {
		return Field{}, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if !bytes.Equal(report[snpReportData:][:len(nonce)], nonce[:]) {
		return Field{}, fmt.Errorf("%w: REPORT_DATA is not the nonce", ErrReport)
	}
	if got := binary.LittleEndian.Uint32(report[snpVMPL:]); got != vmpl {
		return Field{}, fmt.Errorf("%w: VMPL %d, want %d", ErrReport, got, vmpl)
	}
	return Field{
		Kind:    SNP,
		Name:    SNP.field(),
		Value:   bytes.Clone(report[snpHostData:][:HostDataSize]),
		Source:  SourceDevice,
		Version: binary.LittleEndian.Uint32(report[snpVersion:]),
		VMPL:    vmpl,
		Debug:   policy.Debug || policy.MigrateMA,
	}, nil
}
