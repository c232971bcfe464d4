package gate

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	readAhead       = 16 << 10 // bytes; most frames arrive in one read with it
	maxDiscard      = 16 << 20 // bytes; a longer frame ends the connection instead of being skipped
	keepFrameBuffer = 1 << 20  // bytes; a larger buffer is given back once its frame is consumed
)

// filter is the server's view of one accepted connection. It passes on only complete REQUEST frames with odd, rising
// stream ids, for methods the server has. ttrpc's server dereferences nil on a DATA frame for a unary stream that is in
// flight, in a goroutine where no recover can stand; neither that nor half a message reaches it through here. Anything else
// ends the connection.
//
// Only Read and Close differ from the connection's. Read is called by one goroutine.
type filter struct {
	net.Conn
	in      *bufio.Reader // of Conn
	tickets *tickets
	known   func(service, method string) bool
	drain   <-chan struct{} // closed: no further frame is read, Read blocks until Close
	log     *slog.Logger
	quiet   *rate.Limiter

	header [headerLen]byte
	frame  []byte // the current frame, as passed on
	next   int    // how much of frame has been passed on
	lastID uint32
	ended  bool

	ctx   context.Context // ends with Close
	close context.CancelFunc
	once  sync.Once
}

func newFilter(ctx context.Context, conn net.Conn, g *Gate) *filter {
	widen(conn)
	f := &filter{Conn: conn, in: bufio.NewReaderSize(conn, readAhead), tickets: g.tickets, known: g.known, drain: g.draining, log: g.log, quiet: g.quiet}
	f.ctx, f.close = context.WithCancel(ctx)
	return f
}

// Read passes on the next bytes of the current frame, reading a new one when it is used up. Every end is io.EOF: it makes
// ttrpc's server close the connection and cancel its requests, where another error would leave it open.
func (f *filter) Read(p []byte) (int, error) {
	if f.ended {
		return 0, io.EOF
	}
	if f.next == len(f.frame) {
		if err := f.readFrame(); err != nil {
			f.ended = true
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && f.quiet.Allow() {
				f.log.Warn("client connection closed", "peer", peerName(f.Conn), "error", err)
			}
			return 0, io.EOF
		}
	}
	n := copy(p, f.frame[f.next:])
	f.next += n
	if f.next == len(f.frame) && cap(f.frame) > keepFrameBuffer {
		f.frame, f.next = nil, 0
	}
	return n, nil
}

// Close ends the connection; safe to call more than once.
func (f *filter) Close() error {
	err := net.ErrClosed
	f.once.Do(func() {
		f.close()
		err = f.Conn.Close()
	})
	return err
}

// readFrame reads one whole frame, or sets a refusal in its place.
func (f *filter) readFrame() error {
	if err := f.readHeader(); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(f.header[:4]))
	id := binary.BigEndian.Uint32(f.header[4:8])
	switch {
	case f.header[8] != typeRequest:
		return fmt.Errorf("frame type %d: %w", f.header[8], ErrFrame)
	case id%2 != 1 || id <= f.lastID:
		return fmt.Errorf("stream id %d after %d: %w", id, f.lastID, ErrFrame)
	case length > maxDiscard:
		return fmt.Errorf("frame of %d bytes: %w", length, ErrFrame)
	}
	f.lastID = id
	return f.readMessage(length)
}

// readHeader waits for a frame without limit, and then for the rest of its header until the frame's deadline.
func (f *filter) readHeader() error {
	if _, err := f.in.Peek(1); err != nil {
		return err
	}
	select {
	case <-f.drain:
		<-f.ctx.Done()
		return net.ErrClosed
	default:
	}
	return f.within(headerLen, func() error {
		_, err := io.ReadFull(f.in, f.header[:])
		return err
	})
}

// within reads n bytes by means of read, until the frame's deadline if they are not here already.
func (f *filter) within(n int, read func() error) error {
	waits := f.in.Buffered() < n
	if waits {
		if err := f.Conn.SetReadDeadline(time.Now().Add(f.tickets.limits.FrameTimeout)); err != nil {
			return fmt.Errorf("set frame deadline: %w", err)
		}
	}
	if err := read(); err != nil {
		return fmt.Errorf("read frame: %w", inFrame(err))
	}
	if waits {
		return f.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// readMessage reads the message of length bytes that follows the header, once there is room for it.
func (f *filter) readMessage(length int) error {
	t, refusal := f.tickets.take(f.ctx, length)
	if refusal != nil {
		f.setMessage(appendRefusal(f.room(0), refusal))
		return f.within(length, func() error {
			_, err := f.in.Discard(length)
			return err
		})
	}
	message := f.room(length + ticketSuffix)[:headerLen+length]
	err := f.within(length, func() error {
		_, err := io.ReadFull(f.in, message[headerLen:])
		return err
	})
	var e envelope
	if err == nil {
		e, err = parseEnvelope(message[headerLen:])
	}
	switch {
	case err != nil:
		t.release()
		return err
	case e.service == refusedService:
		t.release()
		return fmt.Errorf("request for %s: %w", refusedService, ErrFrame)
	case !f.known(e.service, e.method):
		t.release() // the server answers UNIMPLEMENTED by itself
		f.setMessage(message)
	default:
		f.setMessage(appendTicket(message, t.number))
	}
	return nil
}

// room returns the empty frame buffer behind a header's place, with room for n bytes.
func (f *filter) room(n int) []byte {
	if cap(f.frame) < headerLen+n {
		f.frame = make([]byte, 0, headerLen+n)
	}
	return f.frame[:headerLen]
}

// setMessage makes frame, whose header's place is still free, the frame that is passed on.
func (f *filter) setMessage(frame []byte) {
	copy(frame, f.header[:])
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-headerLen))
	frame[headerLen-1] = 0 // flags concern streams only, and the agent has none
	f.frame, f.next = frame, 0
}

// inFrame keeps a frame that breaks off from looking like a connection that was closed between two frames.
func inFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
