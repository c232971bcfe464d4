// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"portcullis/measure/eventlog"
)

const unixScheme = "unix://"

// retries bounds how often a command is sent again when the TPM answers that it is not ready.
const retries = 5

// banks maps TPM_ALG_ID to the names of the event log.
var banks = map[tpm2.TPMAlgID]string{
	tpm2.TPMAlgSHA1:   "sha1",
	tpm2.TPMAlgSHA256: "sha256",
	tpm2.TPMAlgSHA384: "sha384",
	tpm2.TPMAlgSHA512: "sha512",
}

// pcr is one PCR of an open TPM. Transports of go-tpm are not safe for concurrent use; a pcr lives for one operation.
type pcr struct {
	tpm   transport.TPMCloser
	index uint32
	banks []tpm2.TPMAlgID // active ones, sha256 among them
}

// dial opens a device file or a software TPM's socket.
func dial(device string) (transport.TPMCloser, error) {
	if path, ok := strings.CutPrefix(device, unixScheme); ok {
		return linuxudstpm.Open(path)
	}
	return linuxtpm.Open(device)
}

// openPCR opens the TPM and finds the active banks of the PCR, unless they are known.
func (c *Config) openPCR(known []tpm2.TPMAlgID) (*pcr, error) {
	t, err := c.Dial()
	if err != nil {
		return nil, deviceError(c.Device, err)
	}
	p := &pcr{tpm: t, index: c.PCR, banks: known}
	if known != nil {
		return p, nil
	}
	if err := p.findBanks(); err != nil {
		t.Close()
		return nil, deviceError(c.Device, err)
	}
	return p, nil
}

// deviceError adds the sentinel for errors that the operating system, not the TPM, reports.
func deviceError(device string, err error) error {
	switch {
	case errors.Is(err, ErrBusy), errors.Is(err, ErrBank):
		return err
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: another process has %s open; /dev/tpmrm0 can be shared: %w", ErrBusy, device, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENXIO),
		errors.Is(err, syscall.ENODEV), errors.Is(err, linuxtpm.ErrFileIsNotDevice), errors.Is(err, linuxudstpm.ErrFileIsNotSocket):
		return fmt.Errorf("%w at %s: %w", ErrNoTPM, device, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no access to %s: %w", ErrRead, device, err)
	}
	return fmt.Errorf("%w: %w", ErrRead, err)
}

// command sends cmd, and sends it again after TPM_RC_RETRY, TPM_RC_YIELDED and TPM_RC_TESTING (TPM 2.0 Part 2, 6.6.3).
func command[R any](send func() (*R, error)) (*R, error) {
	for try := 0; ; try++ {
		r, err := send()
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, tpm2.TPMRCRetry) && !errors.Is(err, tpm2.TPMRCYielded) && !errors.Is(err, tpm2.TPMRCTesting) {
			return nil, err
		}
		if try == retries {
			return nil, fmt.Errorf("%w: gave up after %d retries: %w", ErrBusy, retries, err)
		}
		time.Sleep(10 * time.Millisecond << try)
	}
}

// findBanks asks which banks have this PCR (TPM 2.0 Part 3, 30.2, TPM_CAP_PCRS).
func (p *pcr) findBanks() error {
	r, err := command(func() (*tpm2.GetCapabilityResponse, error) {
		return tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(p.tpm)
	})
	if err != nil {
		return fmt.Errorf("asking for PCR banks: %w", err)
	}
	assigned, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return fmt.Errorf("asking for PCR banks: %w", err)
	}
	for _, s := range assigned.PCRSelections {
		if !selects(s, p.index) {
			continue
		}
		if banks[s.Hash] == "" {
			return fmt.Errorf("%w: bank %#04x is active and its hash is not supported", ErrBank, uint16(s.Hash))
		}
		p.banks = append(p.banks, s.Hash)
	}
	if !slices.Contains(p.banks, tpm2.TPMAlgSHA256) {
		return fmt.Errorf("%w: the sha256 bank has no PCR %d; allocate it in the firmware", ErrBank, p.index)
	}
	return nil
}

// selects says whether the bit of a PCR is set.
func selects(s tpm2.TPMSPCRSelection, pcr uint32) bool {
	return int(pcr/8) < len(s.PCRSelect) && s.PCRSelect[pcr/8]&(1<<(pcr%8)) != 0
}

func (p *pcr) names() []string {
	var names []string
	for _, b := range p.banks {
		names = append(names, banks[b])
	}
	return names
}

// read returns the PCR in all banks at one moment: while TPM2_PCR_Read returns fewer banks than asked it is called again, and
// all over when the update counter moved in between.
func (p *pcr) read() (eventlog.Values, uint32, error) {
	for range retries {
		values, counter, err := p.readOnce()
		if err != nil {
			return nil, 0, fmt.Errorf("%w: PCR %d: %w", ErrRead, p.index, err)
		}
		if values != nil {
			return values, counter, nil
		}
	}
	return nil, 0, fmt.Errorf("%w: PCR %d: the TPM's PCRs do not hold still", ErrBusy, p.index)
}

// readOnce returns nil values when the update counter moved.
func (p *pcr) readOnce() (eventlog.Values, uint32, error) {
	values := eventlog.Values{}
	var counter uint32
	for left := p.banks; len(left) > 0; {
		r, err := command(func() (*tpm2.PCRReadResponse, error) {
			return tpm2.PCRRead{PCRSelectionIn: p.selection(left)}.Execute(p.tpm)
		})
		if err != nil {
			return nil, 0, err
		}
		if len(values) > 0 && r.PCRUpdateCounter != counter {
			return nil, 0, nil
		}
		counter = r.PCRUpdateCounter
		n := len(r.PCRValues.Digests)
		if n == 0 || n > len(left) {
			return nil, 0, fmt.Errorf("%d values for %d banks", n, len(left))
		}
		for i, d := range r.PCRValues.Digests {
			name := banks[left[i]]
			if len(d.Buffer) != eventlog.Size(name) {
				return nil, 0, fmt.Errorf("value of %d bytes in the %s bank", len(d.Buffer), name)
			}
			values[name] = d.Buffer
		}
		left = left[n:]
	}
	return values, counter, nil
}

func (p *pcr) selection(algs []tpm2.TPMAlgID) tpm2.TPMLPCRSelection {
	var sel tpm2.TPMLPCRSelection
	for _, alg := range algs {
		sel.PCRSelections = append(sel.PCRSelections,
			tpm2.TPMSPCRSelection{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(uint(p.index))})
	}
	return sel
}

// extend extends the PCR in all its banks in one command (TPM 2.0 Part 3, 22.2).
func (p *pcr) extend(digests []eventlog.Digest) error {
	var list tpm2.TPMLDigestValues
	for i, d := range digests {
		list.Digests = append(list.Digests, tpm2.TPMTHA{HashAlg: p.banks[i], Digest: d.Digest})
	}
	_, err := command(func() (*tpm2.PCRExtendResponse, error) {
		return tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(p.index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   list,
		}.Execute(p.tpm)
	})
	return err
}

// of is another PCR of the same TPM, with the same banks.
func (p *pcr) of(index uint32) *pcr { return &pcr{tpm: p.tpm, index: index, banks: p.banks} }

// digests returns what an event is in each of the PCR's banks.
func (p *pcr) digests(e Event) ([]eventlog.Digest, error) {
	var digests []eventlog.Digest
	for _, name := range p.names() {
		d, err := eventlog.BankDigest(name, e.Digest)
		if e.Text != "" {
			d, err = eventlog.TextDigest(name, e.Text)
		}
		if err != nil {
			return nil, err
		}
		digests = append(digests, eventlog.Digest{HashAlg: name, Digest: d})
	}
	return digests, nil
}
