// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"fmt"
	"runtime"
	"unsafe"

	snpabi "github.com/google/go-sev-guest/client/linuxabi"
	tdxabi "github.com/google/go-tdx-guest/client/linuxabi"
	"golang.org/x/sys/unix"
)

// miscMajor is the major number of every misc device (linux/major.h), which both
// TEE drivers register. It refuses another node, /dev/null say, mounted in place.
const miscMajor = 10

// node is a TEE driver's character device.
type node struct{ fd int }

// openNode opens the character device at path. It never follows a symbolic link,
// and refuses whatever is not a misc character device.
func openNode(path string) (Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(uint64(st.Rdev)) != miscMajor {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: not a misc character device", path)
	}
	return &node{fd: fd}, nil
}

func (n *node) Close() error { return unix.Close(n.fd) }

// Ioctl implements [Device].
func (n *node) Ioctl(command uintptr, argument any) (uintptr, error) {
	switch arg := argument.(type) {
	case *snpabi.SnpUserGuestRequest:
		return n.guestRequest(command, arg)
	case *tdxabi.TdxReportReq:
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), command, uintptr(unsafe.Pointer(arg)))
		if errno != 0 {
			return r, errno
		}
		return r, nil
	default:
		return 0, fmt.Errorf("ioctl argument %T: %w", argument, unix.EINVAL)
	}
}

// guestRequest passes one message to the security processor. The structure holds
// addresses of two others; the converted form keeps all three reachable.
func (n *node) guestRequest(command uintptr, req *snpabi.SnpUserGuestRequest) (uintptr, error) {
	conv := req.ABI()
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), command, uintptr(conv.Pointer()))
	runtime.KeepAlive(conv)
	status := conv.Finish(req)
	switch {
	case errno == unix.EIO:
		// Only here is the firmware's word meaningful: low half firmware, high half VMM.
		return r, fmt.Errorf("%w (firmware 0x%x, VMM 0x%x)", errno, uint32(req.FwErr), req.FwErr>>32)
	case errno == unix.ENOTTY:
		return r, fmt.Errorf("%w (the guest's key to the security processor is gone)", errno)
	case errno != 0:
		return r, errno
	}
	return r, status
}
