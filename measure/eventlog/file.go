// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrFile is returned when the log file cannot be opened, read, or written durably.
var ErrFile = errors.New("event log file")

// File is an open log, locked against every other writer.
//
// A record is written before the register is extended, so the file carries a mark while the two may disagree: the sticky bit
// (S_ISVTX), as systemd's log does. [File.Mark] sets it, [File.Append] writes the record, the caller extends the register, and
// [File.Commit] clears it. Found set on opening, it says that the last record may be cut off, or was perhaps never extended;
// the register's value tells which.
type File struct {
	f       *os.File
	records []Record
	ends    []int64 // offset behind each record
	marked  bool
}

// Open opens or creates the log at path with mode 0600 and locks it; it waits while another process holds the lock. The path
// must not be a symbolic link, nor a file of another owner, of other modes or with a second name. Its directory must exist.
// It returns [ErrInvalid] for a malformed log; a cut-off last record is removed if the mark is set, and is malformed if not.
func Open(path string) (*File, error) { return OpenKnown(path, nil) }

// OpenKnown is [Open] for who opens the log often: what known has of it is not decoded again. Nil for nothing.
func OpenKnown(path string, known *Known) (*File, error) {
	return open(path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND, unix.LOCK_EX, known)
}

// Known is what a process has decoded of a log, for [OpenKnown]. The zero value is nothing. It is in use by one at a time.
type Known struct {
	seed    maphash.Seed
	sum     uint64 // of the first size bytes
	size    int
	records []Record
	ends    []int64
	buffer  []byte // what was read last, for what is read next
}

// room returns size bytes to read into.
func (k *Known) room(size int64) []byte {
	if k == nil {
		return make([]byte, size)
	}
	if int64(cap(k.buffer)) < size {
		k.buffer = make([]byte, size+size/2)
	}
	return k.buffer[:size]
}

// of returns what is known of data: so many records, in its first bytes.
func (k *Known) of(data []byte) (records []Record, ends []int64) {
	if k == nil || k.size == 0 || len(data) < k.size || maphash.Bytes(k.seed, data[:k.size]) != k.sum {
		return nil, nil
	}
	return k.records, k.ends
}

// learn takes note that data holds these records, and nothing else.
func (k *Known) learn(data []byte, records []Record, ends []int64) {
	if k == nil {
		return
	}
	if k.size == 0 {
		k.seed = maphash.MakeSeed()
	}
	k.sum, k.size, k.records, k.ends = maphash.Bytes(k.seed, data), len(data), records, ends
}

// View opens the log like [Open], without creating or changing anything: a cut-off last record is left out, not removed. It
// returns an error that is [os.ErrNotExist] when there is no log.
func View(path string) (*File, error) {
	return open(path, unix.O_RDONLY, unix.LOCK_SH, nil)
}

func open(path string, flags, lock int, known *Known) (*File, error) {
	fd, err := unix.Open(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %w", ErrFile, path, err)
	}
	f := &File{f: os.NewFile(uintptr(fd), path)}
	if err := f.load(lock, flags&unix.O_RDWR != 0, known); err != nil {
		f.f.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) load(lock int, repair bool, known *Known) error {
	if err := flock(f.f, lock); err != nil {
		return f.failed("lock", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return f.failed("stat", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1:
		return f.failed("open", errors.New("not a regular file with one name"))
	case st.Mode&0o7777&^unix.S_ISVTX != 0o600 || st.Uid != uint32(os.Geteuid()):
		return f.failed("open", fmt.Errorf("mode %#o of user %d, want 0600 of user %d", st.Mode&0o7777, st.Uid, os.Geteuid()))
	}
	f.marked = st.Mode&unix.S_ISVTX != 0
	data := known.room(min(st.Size, MaxLogSize+1))
	if _, err := io.ReadFull(f.f, data); err != nil {
		return f.failed("read", err)
	}
	records, ends := known.of(data)
	records, good, err := decodeMore(slices.Clip(records), int(last(ends)), data)
	if err == nil && good != len(data) && !f.marked {
		_, err = Decode(data)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.f.Name(), err)
	}
	f.records, f.ends = records, offsets(ends, data[:good])
	known.learn(data[:good], f.records, f.ends)
	if good != len(data) && repair {
		return f.truncate(int64(good))
	}
	return nil
}

// offsets returns the offset behind each record of a well-formed log, of which the first ends are known.
func offsets(known []int64, data []byte) []int64 {
	ends := slices.Clip(known)
	for at := last(known); int(at) < len(data); {
		at += int64(bytes.IndexByte(data[at:], recordEnd)) + 1
		ends = append(ends, at)
	}
	return ends
}

func last(ends []int64) int64 {
	if len(ends) == 0 {
		return 0
	}
	return ends[len(ends)-1]
}

// Close releases the lock and the file.
func (f *File) Close() error { return f.f.Close() }

// Records returns the complete records, oldest first. The caller must not change them.
func (f *File) Records() []Record { return f.records }

// Marked says whether the mark is set: the last record is perhaps not in the register.
func (f *File) Marked() bool { return f.marked }

// Mark sets the mark, durably.
func (f *File) Mark() error {
	if err := f.chmod(0o600 | unix.S_ISVTX); err != nil {
		return err
	}
	f.marked = true
	return nil
}

// Append writes a record durably; the mark must be set. When it fails, for want of space say, the file holds what it held
// before, or the error says that it could not be restored.
func (f *File) Append(r Record) error {
	if !f.marked {
		return f.failed("append", errors.New("the mark is not set"))
	}
	if err := r.check(len(f.records)); err != nil {
		return err
	}
	framed, err := Encode(r)
	if err != nil {
		return err
	}
	size := f.size()
	if size+int64(len(framed)) > MaxLogSize {
		return f.failed("append", fmt.Errorf("the log would be larger than %d bytes", MaxLogSize))
	}
	if _, err = f.f.Write(framed); err == nil {
		err = f.f.Sync()
	}
	if err != nil {
		err = f.failed("append", err)
		if undo := f.truncate(size); undo != nil {
			err = fmt.Errorf("%w; %w", err, undo)
		}
		return err
	}
	f.records, f.ends = append(slices.Clip(f.records), r), append(slices.Clip(f.ends), size+int64(len(framed)))
	return nil
}

// Commit clears the mark, durably: every record is in the register.
func (f *File) Commit() error {
	if err := f.chmod(0o600); err != nil {
		return err
	}
	f.marked = false
	return nil
}

// Keep removes all records but the first n and commits. It is for a record that was written and never extended.
func (f *File) Keep(n int) error {
	if n < 0 || n > len(f.records) {
		return f.failed("truncate", fmt.Errorf("no record %d", n))
	}
	if n < len(f.records) {
		f.records, f.ends = f.records[:n], f.ends[:n]
		if err := f.truncate(f.size()); err != nil {
			return err
		}
	}
	return f.Commit()
}

func (f *File) size() int64 { return last(f.ends) }

func (f *File) truncate(size int64) error {
	err := f.f.Truncate(size)
	if err == nil {
		err = f.f.Sync()
	}
	if err != nil {
		return f.failed("truncate", err)
	}
	return nil
}

func (f *File) chmod(mode uint32) error {
	err := unix.Fchmod(int(f.f.Fd()), mode)
	if err == nil {
		err = f.f.Sync()
	}
	if err != nil {
		return f.failed("mark", err)
	}
	return nil
}

func (f *File) failed(op string, err error) error {
	return fmt.Errorf("%w: %s %s: %w", ErrFile, op, filepath.Clean(f.f.Name()), err)
}

// flock locks the file, restarting when a signal interrupts the wait.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
