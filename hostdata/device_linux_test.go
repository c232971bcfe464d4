// SPDX-License-Identifier: Apache-2.0

package hostdata_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	snpabi "github.com/google/go-sev-guest/client/linuxabi"
	tdxabi "github.com/google/go-tdx-guest/client/linuxabi"
	"golang.org/x/sys/unix"

	"portcullis/hostdata"
	"portcullis/internal/hostdatatest"
)

// realNodes is a system whose nodes are opened as in a guest.
func realNodes(t *testing.T, guest hostdatatest.Guest) hostdata.System {
	t.Helper()
	sys := system(t, guest)
	sys.Open = nil
	return sys
}

func mknod(t *testing.T, path string, mode uint32, major, minor uint32) {
	t.Helper()
	if err := unix.Mknod(path, mode|0o600, int(unix.Mkdev(major, minor))); err != nil {
		skip(t, "cannot make a device node: %v", err)
	}
}

// skip says what could not be tried; where everything must run it is a failure.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf("SKIP: "+format, args...)
}

// The files that stand in for nodes are regular files: what a container or a mount could put in a device's place.
func TestReadRefusesWhatIsNoDevice(t *testing.T) {
	for kind, guest := range map[hostdata.Kind]hostdatatest.Guest{
		hostdata.SNP: {SNP: &hostdatatest.SNP{HostData: hostData("p")}},
		hostdata.TDX: {TDX: &hostdatatest.TDX{MRConfigID: mrConfigID("p")}},
	} {
		path := "dev/sev-guest"
		if kind == hostdata.TDX {
			path = "dev/tdx_guest"
		}
		refused := func(t *testing.T, replace func(t *testing.T, path string)) {
			t.Helper()
			sys := realNodes(t, guest)
			node := filepath.Join(sys.Root, path)
			remove(t, node)
			replace(t, node)
			_, err := hostdata.Detect(t.Context(), sys)
			wantReason(t, err, "field-read-failed")
			_, err = hostdata.Read(t.Context(), kind, hostdata.Options{System: sys, AllowDebug: true})
			wantReason(t, err, "field-read-failed")
		}
		t.Run(string(kind)+": regular file", func(t *testing.T) {
			refused(t, func(t *testing.T, path string) {
				if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
					t.Fatal(err)
				}
			})
		})
		t.Run(string(kind)+": directory", func(t *testing.T) {
			refused(t, func(t *testing.T, path string) {
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
			})
		})
		t.Run(string(kind)+": symbolic link", func(t *testing.T) {
			refused(t, func(t *testing.T, path string) {
				if err := os.Symlink("/dev/null", path); err != nil {
					t.Fatal(err)
				}
			})
		})
		t.Run(string(kind)+": pipe", func(t *testing.T) {
			refused(t, func(t *testing.T, path string) { mknod(t, path, unix.S_IFIFO, 0, 0) })
		})
		t.Run(string(kind)+": /dev/null", func(t *testing.T) {
			refused(t, func(t *testing.T, path string) { mknod(t, path, unix.S_IFCHR, 1, 3) })
		})
	}
}

// The driver of a real misc device does not know these requests: the system call is made, and what it returns is an error.
func TestIoctlReachesADriver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "misc")
	mknod(t, path, unix.S_IFCHR, 10, 229) // /dev/fuse
	device, err := hostdata.OpenNode(path)
	if err != nil {
		skip(t, "no misc driver to try on: %v", err)
	}
	defer device.Close()
	snp := &snpabi.SnpUserGuestRequest{ReqData: &snpabi.SnpReportReqABI{}, RespData: &snpabi.SnpReportRespABI{}}
	for name, argument := range map[string]any{"SNP": snp, "TDX": &tdxabi.TdxReportReq{}} {
		command := uintptr(0xC0205300)
		if name == "TDX" {
			command = tdxabi.IocTdxGetReport
		}
		_, err := device.Ioctl(command, argument)
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := device.Ioctl(0, "not a request"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v", err)
	}
}

func TestOpenNodeSaysThatThereIsNone(t *testing.T) {
	if _, err := hostdata.OpenNode(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// The structures and numbers of the libraries are those of the kernel's headers (linux/sev-guest.h, linux/tdx-guest.h).
func TestKernelNumbers(t *testing.T) {
	if got := uint64(snpabi.IocSnpGetReport); got != 0xC0205300 {
		t.Errorf("SNP_GET_REPORT is 0x%x", got)
	}
	if got := uint64(tdxabi.IocTdxGetReport); got != 0xC4405401 {
		t.Errorf("TDX_CMD_GET_REPORT0 is 0x%x", got)
	}
}
