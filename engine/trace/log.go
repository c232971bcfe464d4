// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults of [Options].
const (
	DefaultMaxBytes   = 64 << 20
	DefaultQueueBytes = 32 << 20
)

// Options of a log. A zero field means its default.
type Options struct {
	MaxBytes   int64 // size of the file at which the log stops: what is logged first stays
	QueueBytes int   // requests waiting to be written, in bytes; beyond it events are dropped and counted
}

// Event is one decision.
type Event struct {
	Kind    string          // entry point
	Request json.RawMessage // input document
	Allowed bool
	Reason  string
	Time    time.Time
	Sent    bool // the agent gets it, and [Log.Answer] will say what it answered
}

// leftOut are the kinds that are not logged: two are polled without end, one is the policy itself.
var leftOut = []string{"StatsContainerRequest", "ReadStreamRequest", "SetPolicyRequest"}

// Why a path cannot be a log.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrNotOwned   = errors.New("not owned by this user, or linked elsewhere")
)

// Log appends events to a file from a goroutine of its own. It is safe for concurrent use.
type Log struct {
	file    *os.File
	opts    Options
	wake    chan struct{} // one element: the queue is not empty, or the log is closing
	stopped chan struct{}

	mu         sync.Mutex
	queue      []any // line, answerLine and observedLine
	queued     int   // bytes
	ids        uint64
	dropped    uint64
	unreported uint64 // dropped since the last record about it
	closing    bool

	// Of the writing goroutine alone, until stopped is closed.
	out  *bufio.Writer
	size int64
	err  error
}

// Open opens or makes the log at path with mode 0600. The last element of path is not followed if it is a link, and must be a
// regular file with one name that belongs to this user. New events go after what is there.
func Open(path string, opts Options) (*Log, error) {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.QueueBytes <= 0 {
		opts.QueueBytes = DefaultQueueBytes
	}
	// O_NONBLOCK: opening a FIFO must not wait for its other end.
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open decision log: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	file := os.NewFile(uintptr(fd), path)
	size, err := secure(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open decision log %s: %w", path, err), file.Close())
	}
	l := &Log{
		file: file, opts: opts, size: size, out: bufio.NewWriterSize(file, 64<<10),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if err := l.endLine(); err != nil {
		return nil, errors.Join(fmt.Errorf("open decision log %s: %w", path, err), file.Close())
	}
	go l.write()
	return l, nil
}

// secure checks what was opened and gives its size.
func secure(file *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, ErrNotRegular
	}
	if int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return 0, ErrNotOwned
	}
	return st.Size, file.Chmod(0o600)
}

// endLine ends a line that an earlier run left unfinished.
func (l *Log) endLine() error {
	if l.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := l.file.ReadAt(last, l.size-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		l.put([]byte{'\n'})
	}
	return nil
}

// Record hands an event to the log and returns at once. Event.Request must not be changed after. Events of the kinds that are
// left out, and all events after Close, are ignored. The number is what [Log.Answer] takes, 0 where the event is not in the log
// or was not sent.
func (l *Log) Record(ev Event) uint64 {
	if slices.Contains(leftOut, ev.Kind) {
		return 0
	}
	entry := line{Kind: ev.Kind, Request: ev.Request, Allowed: ev.Allowed, Reason: ev.Reason, Time: ev.Time}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ev.Sent {
		entry.ID = l.ids + 1
	}
	if !l.enqueue(entry, len(ev.Request)+len(ev.Kind)+len(ev.Reason)) {
		return 0
	}
	if ev.Sent {
		l.ids++
	}
	return entry.ID
}

// Answer says what the agent answered to the event of that number.
func (l *Log) Answer(id uint64, answer Answer, reason string) {
	if id == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(answerLine{ID: id, Agent: answer, Error: reason, Time: time.Now()}, len(reason)+64)
}

// Observe records an answer that the policy was shown: kind is the entry point, such as WaitProcessResponse, and shown its input.
func (l *Log) Observe(kind string, shown json.RawMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(observedLine{Observed: kind, Request: shown, Time: time.Now()}, len(kind)+len(shown))
}

// enqueue hands an entry to the writing goroutine if there is room. The caller holds mu.
func (l *Log) enqueue(entry any, size int) bool {
	if l.closing {
		return false
	}
	if l.queued+size > l.opts.QueueBytes || len(l.queue) >= maxQueue {
		l.dropped++
		l.unreported++
		return false
	}
	l.queue = append(l.queue, entry)
	l.queued += size
	l.signal()
	return true
}

// maxQueue bounds the queue in events, for those that are nearly empty.
const maxQueue = 1 << 14

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Dropped counts the events that are not in the file: the queue or the file was full, or writing failed.
func (l *Log) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Close writes what is queued and closes the file. It returns the first error of writing.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closing
	l.closing = true
	l.signal()
	l.mu.Unlock()
	<-l.stopped
	if !first {
		return nil
	}
	err := l.file.Close()
	if errors.Is(l.err, errFull) {
		return err
	}
	return errors.Join(l.err, err)
}

// write is the writing goroutine.
func (l *Log) write() {
	defer close(l.stopped)
	for range l.wake {
		batch, unreported, closing := l.take()
		var lost uint64
		for _, entry := range batch {
			if !l.putJSON(entry) {
				lost++
			}
		}
		if unreported > 0 {
			l.putJSON(notice{Dropped: unreported, Time: time.Now()})
		}
		if err := l.out.Flush(); err != nil {
			l.fail(err)
		}
		if lost > 0 {
			l.mu.Lock()
			l.dropped += lost
			l.mu.Unlock()
		}
		if closing {
			return
		}
	}
}

func (l *Log) take() (batch []any, unreported uint64, closing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, unreported, closing = l.queue, l.unreported, l.closing
	l.queue, l.queued, l.unreported = nil, 0, 0
	return batch, unreported, closing
}

// line is an event in the file.
type line struct {
	ID      uint64          `json:"id,omitempty"` // where an answer will follow
	Kind    string          `json:"kind"`
	Request json.RawMessage `json:"request"`
	Allowed bool            `json:"allowed"`
	Reason  string          `json:"reason,omitempty"`
	Time    time.Time       `json:"time"`
}

// answerLine is what the agent answered to the event with that id, and observedLine what the policy was shown of an answer. Like
// notices they have no kind.
type answerLine struct {
	ID    uint64    `json:"id"`
	Agent Answer    `json:"agent"`
	Error string    `json:"error,omitempty"`
	Time  time.Time `json:"time"`
}

type observedLine struct {
	Observed string          `json:"observed"`
	Request  json.RawMessage `json:"request"`
	Time     time.Time       `json:"time"`
}

// notice is a line about the log itself; it has no kind, so that readers of decisions pass over it.
type notice struct {
	Dropped uint64    `json:"dropped,omitempty"`
	Full    bool      `json:"full,omitempty"`
	Time    time.Time `json:"time"`
}

// putJSON writes v as a line unless the log has stopped.
func (l *Log) putJSON(v any) bool {
	text, err := json.Marshal(v)
	if err != nil {
		return false
	}
	return l.put(append(text, '\n'))
}

// errFull stops the log at its size; it is no error of writing.
var errFull = errors.New("decision log is full")

// noticeRoom is kept free for the notice that the log is full.
const noticeRoom = 128

func (l *Log) put(text []byte) bool {
	if l.err != nil {
		return false
	}
	if l.size+int64(len(text)) > l.opts.MaxBytes-noticeRoom {
		text, _ := json.Marshal(notice{Full: true, Time: time.Now()})
		if l.size+noticeRoom <= l.opts.MaxBytes {
			l.emit(append(text, '\n'))
		}
		l.fail(errFull)
		return false
	}
	return l.emit(text)
}

func (l *Log) emit(text []byte) bool {
	n, err := l.out.Write(text)
	l.size += int64(n)
	if err != nil {
		l.fail(err)
	}
	return err == nil
}

func (l *Log) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}
