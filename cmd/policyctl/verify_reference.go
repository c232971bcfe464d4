// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/internal/bounded"
	"portcullis/measure/evidence"
)

// referenceFlags say what was to be launched.
type referenceFlags struct {
	measurements, idKeys, rtmrs []string // hexadecimal; RTMRs as N=HEX
	file                        string
}

func (f *referenceFlags) add(cmd *cobra.Command, names string) {
	cmd.Flags().StringVar(&f.file, "reference", "", "JSON `file` of reference values, as Trustee's provider takes them: "+names)
}

// addSNP adds the flags of an SNP report; whose says whose launch they are about.
func (f *referenceFlags) addSNP(cmd *cobra.Command, whose string) {
	cmd.Flags().StringArrayVar(&f.measurements, "measurement", nil, whose+" launch measurement, 96 `hexadecimal` digits; may be repeated, one must be it")
	cmd.Flags().StringArrayVar(&f.idKeys, "id-key", nil, whose+" ID_KEY_DIGEST, 96 `hexadecimal` digits, in place of a measurement or beside it")
	f.add(cmd, "snp_launch_measurement, snp_id_key_digest, pcr_N")
}

// addTDX adds the flags of a TDX quote.
func (f *referenceFlags) addTDX(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.measurements, "measurement", nil, "the TD's MRTD, 96 `hexadecimal` digits; may be repeated, one must be it")
	cmd.Flags().StringArrayVar(&f.rtmrs, "rtmr", nil, "a run-time register, `N=HEX`; 1 and 2 are needed, they hold kernel, command line and initrd")
	f.add(cmd, "mr_td, rtmr_N")
}

// launch says whether a measurement or its signer was given.
func (f *referenceFlags) launch() bool { return len(f.measurements)+len(f.idKeys) > 0 }

// read reads what the flags say.
func (f *referenceFlags) read() (evidence.Reference, error) {
	var r evidence.Reference
	if f.file != "" {
		text, err := bounded.ReadFile(f.file, maxEvidence)
		if err != nil {
			return r, err
		}
		if r, err = evidence.ParseReference(text); err != nil {
			return r, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	given := evidence.Reference{RTMRs: map[int][][]byte{}}
	for _, text := range f.measurements {
		v, err := launchValue("--measurement", text)
		if err != nil {
			return r, err
		}
		given.Measurements = append(given.Measurements, v)
	}
	for _, text := range f.idKeys {
		v, err := launchValue("--id-key", text)
		if err != nil {
			return r, err
		}
		if len(bytes.Trim(v, "\x00")) == 0 {
			return r, usageError(errors.New("--id-key: zero is what a guest without an ID block has"))
		}
		given.IDKeys = append(given.IDKeys, v)
	}
	for _, text := range f.rtmrs {
		number, value, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > 3 {
			return r, usageError(fmt.Errorf("--rtmr %.20q: want N=HEX with N from 0 to 3", text))
		}
		v, err := launchValue("--rtmr", value)
		if err != nil {
			return r, err
		}
		given.RTMRs[n] = append(given.RTMRs[n], v)
	}
	r.Merge(given)
	return r, nil
}

// launchValue reads a SHA-384 value.
func launchValue(flag, text string) ([]byte, error) {
	v, err := hex.DecodeString(text)
	if err != nil || len(v) != 48 {
		return nil, usageError(fmt.Errorf("%s: want 96 hexadecimal digits", flag))
	}
	return v, nil
}
