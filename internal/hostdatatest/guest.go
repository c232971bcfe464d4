// SPDX-License-Identifier: Apache-2.0

package hostdatatest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"portcullis/hostdata"
)

// Guest is a guest's /proc, /sys and /dev in a directory. A device that is set gets the signs that a current kernel shows for it;
// with neither the guest is an ordinary machine. A test takes signs away by removing files.
type Guest struct {
	Root string
	SNP  *SNP
	TDX  *TDX
}

// System writes the files below g.Root and returns the system to give to package
// hostdata. A device answers for as long as its node is there as a file.
func (g Guest) System() (hostdata.System, error) {
	files := map[string]string{
		"/proc/cpuinfo":                  "processor\t: 0\nflags\t\t: fpu sse2 hypervisor\n\n",
		"/sys/devices/system/cpu/online": "0\n",
	}
	if g.SNP != nil {
		files["/sys/devices/system/cpu/sev/vmpl"] = fmt.Sprintln(g.SNP.VMPL)
		files["/sys/bus/platform/devices/sev-guest/modalias"] = "platform:sev-guest\n"
		files["/sys/class/misc/sev-guest/dev"] = "10:124\n"
		files["/dev/sev-guest"] = ""
	}
	if g.TDX != nil {
		files["/proc/cpuinfo"] = "processor\t: 0\nflags\t\t: fpu sse2 hypervisor tdx_guest\n\n"
		files["/sys/class/misc/tdx_guest/dev"] = "10:125\n"
		files["/sys/devices/virtual/misc/tdx_guest/measurements/mrconfigid"] = string(g.TDX.MRConfigID[:])
		files["/dev/tdx_guest"] = ""
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(g.Root, name), text); err != nil {
			return hostdata.System{}, err
		}
	}
	return hostdata.System{Root: g.Root, Open: g.open}, nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make guest: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("make guest: %w", err)
	}
	return nil
}

func (g Guest) open(path string) (hostdata.Device, error) {
	if _, err := os.Lstat(filepath.Join(g.Root, path)); err != nil {
		return nil, err
	}
	switch {
	case path == "/dev/sev-guest" && g.SNP != nil:
		return g.SNP, nil
	case path == "/dev/tdx_guest" && g.TDX != nil:
		return g.TDX, nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENXIO}
}
