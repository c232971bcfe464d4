// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"crypto/subtle"
	"fmt"

	"portcullis/hostdata/initdata"
)

// Lengths of the fields in bytes.
const (
	HostDataSize   = 32 // SEV-SNP firmware ABI, ATTESTATION_REPORT.HOST_DATA
	MRConfigIDSize = 48 // TDX module ABI, TDINFO_STRUCT.MRCONFIGID
)

// Source is the kernel interface that a field was read through.
type Source string

// The sources.
const (
	SourceDevice Source = "device" // ioctl on the TEE's device node
	SourceSysfs  Source = "sysfs"  // measurement file; the DEBUG attribute cannot be seen
)

// Field is the value that the launcher bound to this guest, and what the report
// around it said. It does not change while the guest runs.
type Field struct {
	Kind    Kind
	Name    string // "hostdata" or "mrconfigid"
	Value   []byte // HostDataSize or MRConfigIDSize bytes, never all zero
	Source  Source
	Version uint32 // SNP: report version, 2 to 5; TDX: REPORTTYPE.VERSION, 0 or 1
	VMPL    uint32 // SNP: privilege level the report was made for; TDX: 0
	Debug   bool   // the guest may be debugged, or migrated by an agent of the host's; only when Options.AllowDebug
}

// Match returns nil when digest, fitted to the field's length as the initdata specification says ([initdata.Fit]), equals the
// whole field. The comparison takes the same time wherever they differ. Otherwise it returns a [*MismatchError], or
// [initdata.ErrShortDigest] for a digest below 32 bytes.
func (f Field) Match(digest []byte) error {
	want, err := initdata.Fit(digest, len(f.Value))
	if err != nil {
		return fmt.Errorf("match %s: %w", f.Name, err)
	}
	if len(f.Value) < initdata.MinDigest || subtle.ConstantTimeCompare(f.Value, want) != 1 {
		return &MismatchError{Field: f.Name, Got: f.Value, Want: want}
	}
	return nil
}
