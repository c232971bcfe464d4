// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// Config says which register and log a [Register] keeps in step.
type Config struct {
	// Device is a TPM character device ("/dev/tpmrm0") or the unix socket of a software TPM ("unix:///run/swtpm.sock").
	Device string
	// PCR is the register, 8 to 15; see [CheckPCR].
	PCR uint32
	// Pod makes the register take the facts of the pod's life; else it takes what the policy is bound by. Both kinds may be in
	// one log, each in its own register.
	Pod bool
	// ExpectPreextended says that another unit extends the digest before us: it is verified and logged, never extended.
	ExpectPreextended bool
	// Log is the event log's file. Its directory must exist and belong to root alone.
	Log string
	// BootID names this boot, 32 hexadecimal digits ([BootID] reads it). A log of another boot is refused. Empty: not checked.
	BootID string
	// Boottime returns the record's timestamp in microseconds; nil means CLOCK_BOOTTIME.
	Boottime func() uint64
	// Dial opens the TPM for one operation; nil means Device.
	Dial func() (transport.TPMCloser, error)
	// OnStep, if set, is called after each step of a measurement is done. It is for tests that stop the process there.
	OnStep func(Step)
}

// Step is a point in the course of one measurement.
type Step int

// The steps of one measurement, in their order.
const (
	StepRead      Step = iota // the PCR was read and judged
	StepMarked                // the log carries the mark
	StepLogged                // the record is on disk
	StepExtended              // every bank was extended
	StepVerified              // the PCR was read back
	StepCommitted             // the mark is cleared
)

func (s Step) String() string {
	names := [...]string{"read", "marked", "logged", "extended", "verified", "committed"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("step %d", int(s))
	}
	return names[s]
}

// CheckPCR returns a [PCRError], which is [ErrPCR], for a register that cannot hold a binding: 0 to 7 belong to the firmware,
// 16 and 23 can be reset at locality 0, 17 to 22 cannot be extended there (TCG PC Client Platform TPM Profile, table 6).
// Whether another unit uses the register (10 is IMA's, 11 to 13 and 15 systemd's) shows in its value.
func CheckPCR(pcr uint32) error {
	switch {
	case pcr <= 7:
		return &PCRError{pcr, "belongs to the firmware"}
	case pcr <= 15:
		return nil
	case pcr == 16 || pcr == 23:
		return &PCRError{pcr, "can be reset by anyone in the guest"}
	case pcr <= 22:
		return &PCRError{pcr, "cannot be extended at locality 0"}
	}
	return &PCRError{pcr, "does not exist"}
}

// BootID returns the kernel's random boot id, 32 hexadecimal digits.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""), nil
}

// Status is the register and its log, for display. Values are hexadecimal.
type Status struct {
	Backend       string            `json:"backend"` // "vtpm"
	Device        string            `json:"device"`
	PCR           uint32            `json:"pcr"`
	State         string            `json:"state"` // a [State], or "unexpected"
	Banks         []string          `json:"banks"`
	Values        map[string]string `json:"values"` // by bank
	Value         string            `json:"value"`  // of the sha256 bank
	UpdateCounter uint32            `json:"updateCounter"`
	Log           string            `json:"log"`
	Seq           uint64            `json:"seq"`              // records in the log that are in the register
	Digest        string            `json:"digest,omitempty"` // sha256 of the latest of them
	EventType     string            `json:"eventType,omitempty"`
	Verified      bool              `json:"verified,omitempty"` // another unit extended it
}

// State is how register and log stand to each other.
type State string

// The states that are not an error.
const (
	// Empty: the PCR is zero in every bank and the log has no event.
	Empty State = "empty"
	// Preextended: the PCR is not zero, the log has no event, and another unit was to extend first. The digest decides.
	Preextended State = "preextended"
	// Measured: replaying the log gives the PCR.
	Measured State = "measured"
)

func boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano() / int64(time.Microsecond))
}

// fill checks c and sets what was left open.
func (c *Config) fill() error {
	if err := CheckPCR(c.PCR); err != nil {
		return err
	}
	if c.Log == "" {
		return errors.New("no event log file configured")
	}
	if c.Boottime == nil {
		c.Boottime = boottime
	}
	if c.OnStep == nil {
		c.OnStep = func(Step) {}
	}
	if c.Dial == nil {
		device := c.Device
		if !strings.HasPrefix(device, "/") && !strings.HasPrefix(device, unixScheme+"/") {
			return fmt.Errorf("TPM device %q is neither a device file nor %s/path", device, unixScheme)
		}
		c.Dial = func() (transport.TPMCloser, error) { return dial(device) }
	}
	return nil
}
