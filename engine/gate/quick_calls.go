// SPDX-License-Identifier: Apache-2.0

//go:build !race

package gate

import (
	"syscall"
	"unsafe"
)

// maxUntold is how many bytes are copied at most without telling Go's scheduler, which takes some microseconds.
const maxUntold = 128 << 10

// receive reads what is there. EAGAIN: nothing is.
func receive(fd int, b []byte) (int, error) {
	return untold(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT)
}

// transmit writes what there is room for. EAGAIN: there is none.
func transmit(fd int, b []byte) (int, error) {
	return untold(syscall.SYS_SENDTO, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// untold makes a system call on a socket that does not block, as its flags say.
func untold(trap uintptr, fd int, b []byte, flags uintptr) (int, error) {
	b = b[:min(len(b), maxUntold)]
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
