// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"errors"
	"io"
	"net"
	"sync"
)

// listener can close the connections it has given out at once; the ttrpc server's own Close waits until they are idle.
type listener struct {
	net.Listener

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		raw.Close()
		return nil, net.ErrClosed
	}
	l.conns[raw] = struct{}{}
	return &conn{Conn: raw, listener: l}, nil
}

// end closes all connections and the listener. The connections come first: when the listener closes, the handlers' contexts
// end, and an agent that was killed does not answer that.
func (l *listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for raw := range l.conns {
		raw.Close()
	}
	l.Listener.Close()
}

type conn struct {
	net.Conn
	listener *listener
}

// Read tells the ttrpc server of a closed connection in the way it takes for the
// end of the client; it would go on waiting otherwise.
func (c *conn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
