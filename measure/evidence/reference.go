// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"portcullis/internal/strictjson"
)

// launchSize is the length of SNP's MEASUREMENT and ID_KEY_DIGEST, and of TDX's MRTD and RTMRs, in bytes.
const launchSize = 48

// ErrReference is returned for reference values that nothing can be compared with.
var ErrReference = errors.New("invalid reference values")

// Reference says what a guest may be: the values of firmware, kernel and root filesystem that the verifier takes. Evidence
// says that a policy is bound in some guest; only these say in which. Each list holds the values of which one must be there.
type Reference struct {
	// Measurements are SNP's MEASUREMENT or TDX's MRTD, 48 bytes each.
	Measurements [][]byte
	// IDKeys are SNP's ID_KEY_DIGEST, SHA-384: who signed the ID block, and with it the measurement. Never zero, which is what a
	// guest without an ID block has.
	IDKeys [][]byte
	// RTMRs are TDX's run-time registers by number, 0 to 3.
	RTMRs map[int][][]byte
	// PCRs are a TPM's registers of the sha256 bank, by number, 32 bytes each.
	PCRs map[uint32][][]byte
	// Ignored are the names in a file of reference values that say nothing to this verifier.
	Ignored []string
}

// ParseReference reads reference values as the reference value provider of Trustee takes them, JSON of names and lists of
// hexadecimal values: "snp_launch_measurement", "snp_id_key_digest", "mr_td", "rtmr_0" to "rtmr_3", "pcr_0" to "pcr_23".
// It returns [ErrReference] for values that are of the wrong length or no hexadecimal.
func ParseReference(text []byte) (Reference, error) {
	var values map[string]any
	if err := strictjson.Unmarshal(text, &values); err != nil {
		return Reference{}, fmt.Errorf("%w: %w", ErrReference, err)
	}
	r := Reference{RTMRs: map[int][][]byte{}, PCRs: map[uint32][][]byte{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := r.take(name, values[name]); err != nil {
			return Reference{}, fmt.Errorf("%w: %q: %w", ErrReference, name, err)
		}
	}
	return r, nil
}

func (r *Reference) take(name string, value any) error {
	add := func(list *[][]byte, size int) error {
		read, err := referenceValues(value, size)
		*list = append(*list, read...)
		return err
	}
	kind, number, _ := strings.Cut(name, "_")
	n, err := strconv.Atoi(number)
	numbered := err == nil && strconv.Itoa(n) == number
	switch {
	case name == "snp_launch_measurement", name == "mr_td":
		return add(&r.Measurements, launchSize)
	case name == "snp_id_key_digest":
		return add(&r.IDKeys, launchSize)
	case kind == "rtmr" && numbered && n >= 0 && n < 4:
		list := r.RTMRs[n]
		err := add(&list, launchSize)
		r.RTMRs[n] = list
		return err
	case kind == "pcr" && numbered && n >= 0 && n < 24:
		list := r.PCRs[uint32(n)]
		err := add(&list, 32)
		r.PCRs[uint32(n)] = list
		return err
	}
	r.Ignored = append(r.Ignored, name)
	return nil
}

// referenceValues reads one hexadecimal text or a list of them, each of size bytes. There is at least one.
func referenceValues(value any, size int) ([][]byte, error) {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	if len(list) == 0 {
		return nil, errors.New("an empty list allows nothing")
	}
	var out [][]byte
	for _, v := range list {
		text, ok := v.(string)
		if !ok {
			return nil, errors.New("want hexadecimal text or a list of it")
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		if len(b) != size {
			return nil, fmt.Errorf("%d bytes, want %d", len(b), size)
		}
		out = append(out, b)
	}
	return out, nil
}

// Merge adds the values of o.
func (r *Reference) Merge(o Reference) {
	r.Measurements, r.IDKeys = append(r.Measurements, o.Measurements...), append(r.IDKeys, o.IDKeys...)
	r.RTMRs, r.PCRs = merged(r.RTMRs, o.RTMRs), merged(r.PCRs, o.PCRs)
	r.Ignored = append(r.Ignored, o.Ignored...)
}

func merged[K comparable](a, b map[K][][]byte) map[K][][]byte {
	out := map[K][][]byte{}
	for _, m := range []map[K][][]byte{a, b} {
		for k, list := range m {
			out[k] = append(out[k], list...)
		}
	}
	return out
}

// among adds the check that a value is one of those wanted. Without any wanted the check cannot be made, and detail says what
// to give.
func (r *Result) among(name string, got []byte, want [][]byte, detail string) {
	if len(want) == 0 {
		r.add(Check{Name: name, Verdict: Unknown, Reason: NotCompared, Got: hex.EncodeToString(got), Detail: detail})
		return
	}
	if slices.ContainsFunc(want, func(w []byte) bool { return bytes.Equal(w, got) }) {
		r.compare(name, got, got)
		return
	}
	r.compare(name, got, want[0])
}

// launchedSNP adds the check "measurement": the report's guest is one of the reference's, by its measurement or by the key that
// signed it. The names of the checks begin with prefix.
func (r *Result) launchedSNP(prefix string, measurement, idKey []byte, ref Reference) {
	const none = "what was launched was not compared; give --measurement, --id-key or --reference"
	signers := slices.DeleteFunc(slices.Clone(ref.IDKeys), func(k []byte) bool { return len(bytes.Trim(k, "\x00")) == 0 })
	if len(signers) > 0 {
		r.among(prefix+"id-key", idKey, signers, none)
	}
	if len(ref.Measurements) > 0 || len(signers) == 0 {
		r.among(prefix+"measurement", measurement, ref.Measurements, none)
	}
}

// launchedTDX adds the checks "measurement", of the firmware, and "rtmrs": the registers 1 and 2, into which the firmware measures
// kernel, command line and initrd, and whichever other the reference names.
func (r *Result) launchedTDX(mrtd []byte, rtmrs [][]byte, ref Reference) {
	r.among("measurement", mrtd, ref.Measurements, "what was launched was not compared; give --measurement (MRTD) or --reference")
	for n, got := range rtmrs {
		if want := ref.RTMRs[n]; len(want) > 0 || n == 1 || n == 2 {
			r.among(fmt.Sprintf("rtmr%d", n), got, want,
				"kernel, command line and initrd were not compared; give --rtmr 1=HEX --rtmr 2=HEX or --reference")
		}
	}
}

// ignored notes the reference values that were not looked at, as they are of another kind of evidence or of none.
func (r *Result) ignored(unused Reference) {
	if names := unused.names(); len(names) > 0 {
		r.skip("reference", fmt.Sprintf("reference values that say nothing here: %.300s", strings.Join(names, ", ")))
	}
}

// names are what the values are called in a file of reference values.
func (r Reference) names() []string {
	names := slices.Clone(r.Ignored)
	if len(r.Measurements) > 0 {
		names = append(names, "snp_launch_measurement", "mr_td")
	}
	if len(r.IDKeys) > 0 {
		names = append(names, "snp_id_key_digest")
	}
	for _, n := range slices.Sorted(maps.Keys(r.RTMRs)) {
		names = append(names, fmt.Sprintf("rtmr_%d", n))
	}
	for _, n := range slices.Sorted(maps.Keys(r.PCRs)) {
		names = append(names, fmt.Sprintf("pcr_%d", n))
	}
	return names
}

// bootCheck names what was booted, where nothing was compared with it.
const bootCheck = "boot"

// booted adds the checks "pcrN" of the registers that the reference names. Without any, the result says that nothing was compared.
func (r *Result) booted(q *quoted, ref Reference) {
	if len(ref.PCRs) == 0 {
		r.skip(bootCheck, "the registers of the boot (PCR 0 to 7, 9 and 11) were not compared; give --reference with pcr_N, or ask your attestation service")
		return
	}
	for _, pcr := range slices.Sorted(maps.Keys(ref.PCRs)) {
		name := fmt.Sprintf("pcr%d", pcr)
		switch at, _ := q.position(pcr); {
		case at < 0:
			r.add(Check{Name: name, Verdict: Unknown, Reason: NotCompared, Detail: "the quote does not cover it"})
		case q.values == nil:
			r.add(Check{Name: name, Verdict: Unknown, Reason: NotCompared, Detail: "the quoted values were not given (--pcrs)"})
		default:
			r.among(name, q.values[at], ref.PCRs[pcr], "")
		}
	}
}
