// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// connected is both ends of a socket, the first of them quick.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near = quick(conn)
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

func TestAWriteThatWaitsEndsAtItsDeadline(t *testing.T) {
	near, far := connected(t)
	_ = near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := near.Write(make([]byte, 16<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 16<<20 {
		t.Fatalf("%d bytes were written, then %v", n, err)
	}
	if _, err := io.ReadFull(far, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	_ = near.SetWriteDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.Copy(io.Discard, far) }()
	for range 3 { // the deadline that has passed is over, and so is each that counted
		if n, err := near.Write(make([]byte, 4<<20)); n != 4<<20 || err != nil {
			t.Fatalf("%d bytes were written, then %v", n, err)
		}
	}
}

func TestQuickReads(t *testing.T) {
	near, far := connected(t)
	data := bytes.Repeat([]byte("portcullis"), 1000)
	go func() {
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 999):] {
			_, _ = far.Write(rest[:min(len(rest), 999)])
			time.Sleep(time.Millisecond)
		}
		far.Close()
	}()
	if got, err := io.ReadAll(near); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes came, then %v", len(got), len(data), err)
	}
	_ = near.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading after the deadline: %v", err)
	}
	near.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading what is closed: %v", err)
	}
}
