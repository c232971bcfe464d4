// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Guard lets in of a loopback listener's connections those that [Listen] does. It closes l when it fails, and when it is closed.
func Guard(l net.Listener, log *slog.Logger) (net.Listener, error) {
	own, err := cgroupsOf("self")
	if err == nil {
		_, err = ParseAddress(l.Addr().String())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", l.Addr(), err), l.Close())
	}
	g := &guard{Listener: l, own: own, log: log, known: &knownCgroups{own: own}, newcomers: make(chan newcomer, maxNewcomers),
		unidentified: make(chan []newcomer, 1), admitted: make(chan net.Conn), done: make(chan struct{})}
	for range acceptors {
		go g.accept()
	}
	go g.recognize()
	go g.identify()
	return netutil.LimitListener(g, maxConnections), nil
}

const (
	// acceptors take connections at the same time: those of a container are hung up on as fast as they come.
	acceptors = 2
	// maxNewcomers is how many connections wait to be recognized, and how many to be identified. Of more the oldest are hung up on.
	maxNewcomers = 512
	// maxRecent is how many processes are looked at first, because they were let in before.
	maxRecent = 16
)

// guard hangs up on peers that are not to be served. First comes what the kernel says of a connection's other end. Then processes are
// looked at that were let in before, and last all of the guest's own, once for all connections that wait meanwhile; what a container
// opens, starts or connects costs those that are let in next to nothing.
type guard struct {
	net.Listener
	own          cgroups
	log          *slog.Logger
	known        *knownCgroups
	newcomers    chan newcomer
	unidentified chan []newcomer // held by no process that was let in before
	admitted     chan net.Conn
	close        sync.Once
	done         chan struct{} // closed when the listener is, or fails

	mu     sync.Mutex
	err    error     // of the listener
	recent []string  // processes that were let in, the latest first
	logged time.Time // of the last refusal in the log
	silent int       // refusals since
}

// newcomer is a connection from a socket of this user or root, of whose processes nothing is known yet.
type newcomer struct {
	net.Conn
	inode uint32
}

// Accept returns the next connection from a peer that may connect.
func (g *guard) Accept() (net.Conn, error) {
	select {
	case conn := <-g.admitted:
		return conn, nil
	case <-g.done:
		g.mu.Lock()
		defer g.mu.Unlock()
		return nil, g.err
	}
}

// Close stops listening. Connections that were accepted live on.
func (g *guard) Close() error {
	err := g.Listener.Close()
	g.end(net.ErrClosed)
	return err
}

func (g *guard) end(err error) {
	g.close.Do(func() {
		g.mu.Lock()
		g.err = err
		g.mu.Unlock()
		close(g.done)
	})
}

// acceptPause is how long to wait when no connection can be taken, for want of file descriptors for instance.
const acceptPause = 5 * time.Millisecond

// accept takes connections until the listener ends.
func (g *guard) accept() {
	for {
		conn, err := g.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			g.end(err)
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		s, err := peerOf(conn)
		if err == nil {
			err = g.known.check(s.cgroup)
		}
		if err != nil {
			g.refuse(conn, err)
			continue
		}
		select {
		case g.newcomers <- newcomer{conn, s.inode}:
		case <-g.done:
			conn.Close()
		}
	}
}

// recognize lets in those newcomers whose sockets a process holds that was let in before, and leaves the others to identify.
func (g *guard) recognize() {
	var unidentified []newcomer
	for {
		// While those that wait are being identified, others come.
		hand := g.unidentified
		if len(unidentified) == 0 {
			hand = nil
		}
		select {
		case hand <- unidentified:
			unidentified = nil
		case n := <-g.newcomers:
			unidentified = append(unidentified, g.admitRecent(g.waiting(n))...)
			if len(unidentified) > maxNewcomers {
				unidentified = g.shed(unidentified)
			}
		case <-g.done:
			return
		}
	}
}

// shed hangs up on unidentified peers that are gone, and then on the oldest, until half as many as may wait are left.
func (g *guard) shed(unidentified []newcomer) []newcomer {
	unidentified = slices.DeleteFunc(unidentified, func(n newcomer) bool {
		_, err := peerOf(n.Conn)
		if err != nil {
			g.refuse(n.Conn, err)
		}
		return err != nil
	})
	if excess := len(unidentified) - maxNewcomers/2; excess > 0 {
		for _, n := range unidentified[:excess] {
			g.refuse(n.Conn, errTooMany)
		}
		unidentified = slices.Clone(unidentified[excess:])
	}
	return unidentified
}

// waiting takes all newcomers that are there, first among them.
func (g *guard) waiting(first newcomer) []newcomer {
	all := []newcomer{first}
	for {
		select {
		case n := <-g.newcomers:
			all = append(all, n)
		default:
			return all
		}
	}
}

// admitRecent lets in whom it can and returns the others.
func (g *guard) admitRecent(newcomers []newcomer) []newcomer {
	g.mu.Lock()
	recent := slices.Clone(g.recent)
	g.mu.Unlock()
	held := map[uint32]string{}
	for _, pid := range recent {
		addSockets(held, pid, g.own)
	}
	return slices.DeleteFunc(newcomers, func(n newcomer) bool {
		pid, ok := held[n.inode]
		if ok {
			g.admit(n.Conn, pid)
		}
		return ok
	})
}

// identify lets in those peers whose sockets one of the guest's own processes holds.
func (g *guard) identify() {
	for {
		select {
		case unidentified := <-g.unidentified:
			held, err := socketsOf(g.own)
			for _, n := range unidentified {
				pid, ok := held[n.inode]
				switch {
				case err != nil:
					g.refuse(n.Conn, err)
				case !ok:
					g.refuse(n.Conn, errForeign)
				default:
					g.admit(n.Conn, pid)
				}
			}
		case <-g.done:
			return
		}
	}
}

// admit hands a connection to Accept, whenever that is called.
func (g *guard) admit(conn net.Conn, pid string) {
	g.mu.Lock()
	g.recent = slices.DeleteFunc(g.recent, func(f string) bool { return f == pid })
	g.recent = slices.Insert(g.recent, 0, pid)[:min(len(g.recent)+1, maxRecent)]
	g.mu.Unlock()
	go func() {
		select {
		case g.admitted <- conn:
		case <-g.done:
			conn.Close()
		}
	}()
}

// refusalsLogged is how far apart refusals are logged, which a container could otherwise do without end.
const refusalsLogged = 10 * time.Second

func (g *guard) refuse(conn net.Conn, why error) {
	conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.logged) < refusalsLogged {
		g.silent++
		return
	}
	g.log.Warn("connection refused", "peer", conn.RemoteAddr().String(), "error", why, "not_logged", g.silent)
	g.logged, g.silent = time.Now(), 0
}
