// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"portcullis/engine/gate"
	"portcullis/internal/atomicfile"
	"portcullis/internal/bounded"
	"portcullis/measure/record"
)

const (
	// recordSocket is the name of the record's socket in the run directory.
	recordSocket = "record.sock"
	// recordKeyFile keeps the seed of the guest's key over restarts. It ends with the boot, as all of the directory.
	recordKeyFile = "record.key"
)

// openRecordKey reads the guest's key of this boot, or makes it.
func openRecordKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, recordKeyFile)
	seed, err := bounded.ReadRegular(path, ed25519.SeedSize)
	if errors.Is(err, fs.ErrNotExist) {
		var key ed25519.PrivateKey
		if _, key, err = ed25519.GenerateKey(nil); err == nil {
			seed = key.Seed()
			err = atomicfile.Write(path, seed, 0o600)
		}
	}
	if err == nil && len(seed) != ed25519.SeedSize {
		err = fmt.Errorf("%s has %d bytes", path, len(seed))
	}
	if err != nil {
		return nil, fmt.Errorf("key of the launch record: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// serveRecord answers on the record's socket: a client writes a nonce of up to 32 bytes in hexadecimal digits, or nothing, and a line
// end, and gets one JSON document. It returns what ends it.
func (d *policyDaemon) serveRecord(ctx context.Context) (stop func()) {
	if d.book == nil {
		return func() {}
	}
	return d.serveSocket(ctx, gate.Address{Path: filepath.Join(d.config.runDir(), recordSocket)}, d.answerRecord)
}

func (d *policyDaemon) answerRecord(_ context.Context, conn net.Conn) {
	answer, err := d.recordAnswer(conn)
	if err != nil {
		answer = map[string]string{"error": err.Error()}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		d.log.Error("encode record", "error", err)
		return
	}
	_, _ = conn.Write(append(text, '\n'))
}

func (d *policyDaemon) recordAnswer(conn net.Conn) (any, error) {
	line, err := bufio.NewReader(io.LimitReader(conn, 2*record.MaxNonce+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("no nonce, or no line end behind it")
	}
	nonce, err := hex.DecodeString(strings.TrimSpace(line))
	if err != nil || len(nonce) > record.MaxNonce {
		return nil, fmt.Errorf("want a nonce of at most %d bytes in hexadecimal digits", record.MaxNonce)
	}
	answer := record.Answer{State: d.book.State(), PCR: d.recordPCR}
	if d.recordKey != nil {
		answer.Sign(d.recordKey, nonce)
	}
	return answer, nil
}
