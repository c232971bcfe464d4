// SPDX-License-Identifier: Apache-2.0

//go:build race

package gate

import "syscall"

// The race detector knows by Go's own calls what sockets carry from one goroutine to another.

func receive(fd int, b []byte) (int, error) { return told(syscall.Read, fd, b) }

func transmit(fd int, b []byte) (int, error) { return told(syscall.Write, fd, b) }

func told(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		if n, err := call(fd, b); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
