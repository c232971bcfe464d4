// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/internal/bounded"
	"portcullis/internal/wait"
)

// Kind is a TEE whose field this package reads.
type Kind string

// The kinds.
const (
	None Kind = ""    // no sign of a TEE
	SNP  Kind = "snp" // AMD SEV-SNP
	TDX  Kind = "tdx" // Intel TDX
)

// System is where this package looks. The zero value is the running guest.
type System struct {
	// Root is put before every path of /proc, /sys and /dev. "" means "/".
	Root string
	// Open opens a device node by its path, Root not included. Nil means the character device below Root. Its error must match
	// fs.ErrNotExist exactly when there is no such node.
	Open func(path string) (Device, error)

	items configfs // nil: the kernel's
}

// Signal is one sign that the guest runs in a TEE.
type Signal struct {
	Kind Kind
	Path string // the file that shows it
}

// Files that exist in a guest of one TEE and nowhere else. None depends on the device node or on the module behind it.
var signalPaths = [...]Signal{
	{SNP, pathVMPL}, // Linux 6.11
	{SNP, "/sys/bus/platform/devices/sev-guest"}, // registered by the core, driver or not
	{SNP, "/sys/bus/platform/devices/tpm-svsm"},  // TPM of an SVSM, Linux 6.16
	{SNP, "/sys/class/misc/sev-guest"},
	{SNP, pathSNP},
	{TDX, "/sys/devices/virtual/misc/tdx_guest"},
	{TDX, "/sys/class/misc/tdx_guest"},
	{TDX, pathTDX},
}

const (
	pathCPUInfo = "/proc/cpuinfo"
	pathCPUs    = "/sys/devices/system/cpu"
	flagTDX     = "tdx_guest" // set by the kernel from CPUID leaf 0x21
	maxCPUInfo  = 256 << 10   // one CPU's lines, generously
)

// Detect returns the TEE that this guest runs in, None when there is no sign of one. It is an error when there are signs of two
// (ErrTwoTEEs), when /proc or /sys cannot be looked at, or when the TEE cannot be read from (both ErrRead): a device that was
// taken away is never "no TEE here". ctx bounds the whole.
func Detect(ctx context.Context, sys System) (Kind, error) {
	kind, err := wait.Result(ctx, sys.detect)
	if err != nil {
		return None, fmt.Errorf("detect TEE: %w", asRead(err))
	}
	return kind, nil
}

// asRead gives err, a timeout for one, the reason of a failed read unless it already has a reason.
func asRead(err error) error {
	if Reason(err) != "" {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRead, err)
}

func (s System) detect() (Kind, error) {
	signals, err := s.Signals()
	if err != nil {
		return None, err
	}
	if len(signals) == 0 {
		return None, nil
	}
	kind := signals[0].Kind
	for _, signal := range signals {
		if signal.Kind != kind {
			return None, fmt.Errorf("%w: %s and %s", ErrTwoTEEs, signals[0].Path, signal.Path)
		}
	}
	if err := s.readable(kind); err != nil {
		return None, fmt.Errorf("%s shows %s, but: %w", signals[0].Path, kind, err)
	}
	return kind, nil
}

// Signals returns every sign of a TEE that is there, in a fixed order, and an
// error when one of the places could not be looked at.
func (s System) Signals() ([]Signal, error) {
	var found []Signal
	// Without sysfs nothing could be found there, which would look like no TEE.
	if _, err := os.Stat(s.path(pathCPUs)); err != nil {
		return nil, asRead(err)
	}
	flags, err := s.cpuFlags()
	if err != nil {
		return nil, asRead(err)
	}
	if slices.Contains(flags, flagTDX) {
		found = append(found, Signal{TDX, pathCPUInfo})
	}
	for _, signal := range signalPaths {
		switch _, err := os.Lstat(s.path(signal.Path)); {
		case err == nil:
			found = append(found, signal)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, asRead(err)
		}
	}
	return found, nil
}

// cpuFlags returns the first CPU's feature flags, under the name that the
// architecture gives them. A file without them is an error.
func (s System) cpuFlags() ([]string, error) {
	f, err := os.Open(s.path(pathCPUInfo))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxCPUInfo))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "flags", "features", "isa":
			return strings.Fields(value), nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s has no line of CPU flags", pathCPUInfo)
}

// readable returns nil when there is something to read kind's field from.
func (s System) readable(kind Kind) error {
	path := pathSNP
	if kind == TDX {
		path = pathTDX
	}
	device, err := s.open(path)
	if kind == TDX && errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(s.path(pathMRConfigID))
		return asReadOrNil(err)
	}
	if err != nil {
		return asRead(err)
	}
	return asReadOrNil(device.Close())
}

func asReadOrNil(err error) error {
	if err == nil {
		return nil
	}
	return asRead(err)
}

// path returns where name is below the root.
func (s System) path(name string) string { return filepath.Join("/", s.Root, name) }

func (s System) open(path string) (Device, error) {
	if s.Open != nil {
		return s.Open(path)
	}
	return openNode(s.path(path))
}

// readFile returns the contents of a small kernel file, at most max bytes; more is an error.
func (s System) readFile(name string, max int64) ([]byte, error) {
	return bounded.ReadFile(s.path(name), max)
}
