// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendBuffer is what a unix socket takes before its writer has to wait, in bytes. The default is less than half of the largest
// writes to a container's input: each would wait for its reader in the middle.
const sendBuffer = 1 << 20

// widen gives a unix socket the larger buffer, as far as the process may: without CAP_NET_ADMIN the system's limit stays.
func widen(conn net.Conn) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { setSendBuffer(int(fd)) })
}

func setSendBuffer(fd int) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
	}
}

// attend tells Go's scheduler, by a system call that does nothing, that what may take long begins: a policy is compiled or evaluated,
// whatever woke up the goroutine that waits for it. Without its monitor no goroutine makes
// place for others that wait for a processor, and deadlines pass unnoticed while all processors are busy.
func attend() { _, _, _ = syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0) }
