// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"time"

	"portcullis/engine/gate"
)

const (
	// statusSocket is the name of the status socket in the run directory.
	statusSocket = "status.sock"
	// statusWrite bounds one connection once its status is known; its client has to take it in that time.
	statusWrite = 2 * time.Second
	// statusDrain is how much of what a client sends is thrown away.
	statusDrain = 64 << 10
)

// serveStatus answers each connection to the status socket with one JSON document, one at a time, and reads nothing. The
// socket is root's. Without it policyd protects no less, so an error is only logged. It returns what ends it.
func (d *policyDaemon) serveStatus(ctx context.Context) (stop func()) {
	if d.config.stateless { // it has no run directory
		return func() {}
	}
	return d.serveSocket(ctx, gate.Address{Path: filepath.Join(d.config.runDir(), statusSocket)}, d.answerStatus)
}

// serveSocket has each connection to a socket in the run directory answered, one at a time, within the time for one. It returns what
// ends it.
func (d *policyDaemon) serveSocket(ctx context.Context, address gate.Address, answer func(context.Context, net.Conn)) (stop func()) {
	l, err := address.Listen(ctx)
	if err != nil {
		d.log.Error("no socket", "path", address.Path, "error", err)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				d.log.Error("socket", "path", address.Path, "error", err)
				time.Sleep(100 * time.Millisecond) // a lack of descriptors, which passes
				continue
			}
			d.answer(ctx, conn, answer)
		}
	}()
	return func() {
		l.Close()
		<-done
	}
}

func (d *policyDaemon) answerStatus(ctx context.Context, conn net.Conn) {
	status := d.chain.Status(context.WithoutCancel(ctx))
	if d.book != nil {
		s := d.book.State()
		status.Record = &s
	}
	status.Requests = d.gate.Counts()
	text, err := json.Marshal(status)
	if err != nil {
		d.log.Error("encode status", "error", err)
		return
	}
	if conn.SetDeadline(time.Now().Add(statusWrite)) != nil {
		return
	}
	_, _ = conn.Write(append(text, '\n'))
}

// answer serves one connection.
func (d *policyDaemon) answer(ctx context.Context, conn net.Conn, answer func(context.Context, net.Conn)) {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(statusWrite)) != nil {
		return
	}
	answer(ctx, conn)
	// Closing with unread bytes would reset the connection under a client that wrote something.
	if c, ok := conn.(*net.UnixConn); ok && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, conn, statusDrain)
	}
}
