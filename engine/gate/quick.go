// SPDX-License-Identifier: Apache-2.0

//go:build !race

package gate

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// Go tells its scheduler of each system call. The first one after all was idle wakes the monitor, a thread that looks around every 20
// microseconds from then on: on the few processors of a guest it runs in the place of client and agent, twice for each request. Sockets
// never block in Go, so the scheduler need not know of their reads and writes.

// quickConn is a socket that is read and written without telling the scheduler, by one goroutine at a time each. Whoever goes on with
// what was read calls attend, unless that takes no time.
type quickConn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
	until   time.Time // when a write that has to wait is given up; zero: never
	waited  bool      // the write under way has had to
}

// transfer is a read or a write under way.
type transfer struct {
	rest []byte
	err  error
	try  func(fd uintptr) bool // for [syscall.RawConn]: false to wait until the socket is ready
}

// quick makes a connection quick, if it is a socket.
func quick(conn net.Conn) net.Conn {
	socket, ok := conn.(syscall.Conn)
	if !ok { // such as TLS
		return conn
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return conn
	}
	c := &quickConn{Conn: conn, raw: raw}
	c.in.try, c.out.try = c.tryRead, c.tryWrite
	return c
}

// Read implements io.Reader.
func (c *quickConn) Read(b []byte) (int, error) {
	c.in = transfer{rest: b, try: c.in.try}
	err := c.raw.Read(c.in.try)
	n, err := c.in.end(b, err)
	if n == 0 && len(b) > 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (c *quickConn) tryRead(fd uintptr) bool {
	for {
		switch errno := c.in.call(syscall.SYS_READ, fd); errno {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			return true
		}
	}
}

// Write implements io.Writer.
func (c *quickConn) Write(b []byte) (int, error) {
	c.out = transfer{rest: b, try: c.out.try}
	err := c.raw.Write(c.out.try)
	if c.waited {
		c.waited = false
		err = errors.Join(err, c.Conn.SetWriteDeadline(time.Time{}))
	}
	return c.out.end(b, err)
}

func (c *quickConn) tryWrite(fd uintptr) bool {
	for len(c.out.rest) > 0 {
		switch errno := c.out.call(syscall.SYS_WRITE, fd); errno {
		case 0, syscall.EINTR:
		case syscall.EAGAIN:
			c.waited = true
			c.out.err = c.Conn.SetWriteDeadline(c.until)
			return c.out.err != nil
		default:
			return true
		}
	}
	return true
}

// SetWriteDeadline implements net.Conn. Few writes have to wait, and only those need the deadline.
func (c *quickConn) SetWriteDeadline(until time.Time) error {
	c.until = until
	return nil
}

// end says what became of b, and lets go of its memory.
func (t *transfer) end(b []byte, err error) (int, error) {
	n := len(b) - len(t.rest)
	t.rest = nil
	return n, errors.Join(err, t.err)
}

// call makes one attempt.
func (t *transfer) call(trap, fd uintptr) syscall.Errno {
	n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.rest))), uintptr(len(t.rest)))
	switch errno {
	case 0:
		t.rest = t.rest[n:]
	case syscall.EINTR, syscall.EAGAIN:
	default:
		t.err = errno
	}
	return errno
}
