// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// Go tells its scheduler of each system call. The first one after a pause wakes the scheduler's monitor, a thread that looks around every
// 20 microseconds from then on: twice for each request, which takes as much processor time as a short one does itself, in the place of
// client and agent where there are few processors. Reads and writes of sockets never block here, so the scheduler need not know of them.

// quickConn is a socket that is read and written without telling Go's scheduler, by one goroutine at a time each. Whoever begins
// something long calls attend.
type quickConn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write under way.
type transfer struct {
	rest []byte
	done int // bytes
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
	n, err := c.in.run(c.raw.Read, b)
	if n == 0 && len(b) > 0 && (err == nil || errors.Is(err, syscall.ENOTCONN)) { // which vsock says of a peer that has gone
		err = io.EOF
	}
	return n, err
}

func (c *quickConn) tryRead(fd uintptr) bool { return !c.in.waits(receive(int(fd), c.in.rest)) }

// Write implements io.Writer.
func (c *quickConn) Write(b []byte) (int, error) { return c.out.run(c.raw.Write, b) }

// tryWrite makes attempts until all is written.
func (c *quickConn) tryWrite(fd uintptr) bool {
	for len(c.out.rest) > 0 && c.out.err == nil {
		if c.out.waits(transmit(int(fd), c.out.rest)) {
			return false
		}
	}
	return true
}

// run has attempts made on b until one comes to something, or the connection's deadline or end.
func (t *transfer) run(attempts func(func(fd uintptr) bool) error, b []byte) (int, error) {
	t.rest, t.done, t.err = b, 0, nil
	err := attempts(t.try)
	t.rest = nil
	return t.done, errors.Join(err, t.err)
}

// waits takes note of an attempt, and reports whether the socket was not ready.
func (t *transfer) waits(n int, err error) bool {
	switch {
	case err == nil:
		t.rest, t.done = t.rest[n:], t.done+n
	case !errors.Is(err, syscall.EAGAIN):
		t.err = err
	default:
		return true
	}
	return false
}

// writeParts writes parts as one. Several are many bytes, which Go writes in one call.
func writeParts(conn net.Conn, parts net.Buffers) error {
	if c, ok := conn.(*quickConn); ok && len(parts) > 1 {
		conn = c.Conn
	}
	_, err := parts.WriteTo(conn)
	return err
}
