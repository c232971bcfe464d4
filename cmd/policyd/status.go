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
	address := gate.Address{Path: filepath.Join(d.config.runDir(), statusSocket)}
	l, err := address.Listen(ctx)
	if err != nil {
		d.log.Error("no status socket", "error", err)
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
				d.log.Error("status socket", "error", err)
				time.Sleep(100 * time.Millisecond) // a lack of descriptors, which passes
				continue
			}
			d.answerStatus(ctx, conn)
		}
	}()
	return func() {
		l.Close()
		<-done
	}
}

func (d *policyDaemon) answerStatus(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	text, err := json.Marshal(d.chain.Status(context.WithoutCancel(ctx)))
	if err != nil {
		d.log.Error("encode status", "error", err)
		return
	}
	if conn.SetDeadline(time.Now().Add(statusWrite)) != nil {
		return
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return
	}
	// Closing with unread bytes would reset the connection under a client that wrote something.
	if c, ok := conn.(*net.UnixConn); ok && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, conn, statusDrain)
	}
}
