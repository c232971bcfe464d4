// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"portcullis/internal/hostdatatest"
)

// The guest decides once what it is going to be asked, unless a policy has come meanwhile.
func TestTheGuestRehearsesWhileItWaits(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{})
	var log bytes.Buffer
	r := m.boot()
	defer r.stop()
	r.d.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.d.warm(context.Background())
	if !strings.Contains(log.String(), "rehearsed decisions=2 ") {
		t.Errorf("rehearsed is not a sandbox and a container:\n%s", &log)
	}
	log.Reset()
	if err := r.d.chain.SetPolicy(t.Context(), []byte(podPolicy)); err != nil {
		t.Fatal(err)
	}
	r.d.warm(context.Background())
	if log.Len() > 0 {
		t.Errorf("with a policy that waits for the processor:\n%s", &log)
	}
}
