// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portcullis/engine/binding"
	"portcullis/internal/bounded"
	"portcullis/internal/strictjson"
	"portcullis/measure/record"
)

const (
	// statusTimeout bounds the whole of a status: policyd may wait for a busy TPM.
	statusTimeout = 15 * time.Second
	// maxStatus is the longest status, in bytes.
	maxStatus = 64 << 10
)

func newStatus() *cobra.Command {
	var asJSON, watch bool
	var every time.Duration
	var socket string
	cmd := &cobra.Command{
		Use:   "status [--json] [--watch]",
		Short: "Show what a running policyd is bound to, and what decides",
		Long: `Show mode, backend, field, binding, digests, register, event log and state of the policyd that runs in this guest. It is
read from a socket that only root can open. With --watch it is printed again whenever it changes, until the program is stopped;
a policyd that cannot be reached is told, and waited for.

Exit code 1: policyd denies all requests; 3: it cannot be reached.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				w := statusWatch{socket: socket, every: every, json: asJSON, out: cmd.OutOrStdout()}
				return w.run(cmd.Context())
			}
			s, err := readStatus(cmd.Context(), socket)
			if err != nil {
				return fmt.Errorf("read status of policyd: %w", err)
			}
			err = writeStatus(cmd.OutOrStdout(), s, asJSON)
			if err == nil && s.State == binding.StateDenied {
				return errNo
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "`path` of policyd's status socket")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, and print the status whenever it changes")
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "how often --watch looks")
	return cmd
}

// defaultSocket is where policyd answers with its status.
const defaultSocket = "/run/portcullis/status.sock"

func writeStatus(out io.Writer, s binding.Status, asJSON bool) error {
	if asJSON {
		return writeJSON(out, s)
	}
	_, err := io.WriteString(out, statusText(s))
	return err
}

// statusWatch prints a status whenever it changes.
type statusWatch struct {
	socket string
	every  time.Duration
	json   bool
	out    io.Writer
}

// run goes on until ctx ends, which is no failure.
func (w *statusWatch) run(ctx context.Context) error {
	if w.every <= 0 {
		return usageError(fmt.Errorf("--interval is %s, want a time", w.every))
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	last := ""
	for {
		now := w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if now != last {
			if _, err := io.WriteString(w.out, now); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look is the status as it is to be printed, or why there is none.
func (w *statusWatch) look(ctx context.Context) string {
	s, err := readStatus(ctx, w.socket)
	if err != nil && w.json {
		return fmt.Sprintf("{\"error\":%q}\n", err)
	}
	if err != nil {
		return fmt.Sprintf("policyd cannot be reached: %v\n\n", err)
	}
	var b strings.Builder
	if writeStatus(&b, s, w.json) != nil {
		return ""
	}
	if !w.json {
		b.WriteString("\n")
	}
	return b.String()
}

func readStatus(ctx context.Context, socket string) (binding.Status, error) {
	var s binding.Status
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return s, err
	}
	text, err := bounded.ReadAll(conn, maxStatus)
	if err != nil {
		return s, err
	}
	return s, strictjson.Unmarshal(text, &s)
}

func statusText(s binding.Status) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s%s\n", label, fmt.Sprintf(format, args...))
	}
	line("state", "%s", s.State)
	if s.Code != "" {
		line("reason", "%s: %s", s.Code, s.Reason)
	}
	line("mode", "%s", s.Mode)
	line("backend", "%s", s.Backend)
	if s.Note != "" {
		line("binding", "%s, %s", s.Binding, s.Note)
	} else {
		line("binding", "%s", s.Binding)
	}
	if s.Field != nil {
		line("field", "%s %s (%s)", s.Field.Name, s.Field.Value, s.Field.Source)
	}
	line("policy", "sha256 %s (%d bytes)", s.Policy, s.Size)
	for _, f := range s.Fragments {
		line("fragment", "sha256 %s, feed %s, svn %d, by %s", f.Digest, f.Feed, f.SVN, f.Issuer)
	}
	if s.Initdata != nil {
		line("initdata", "%s %s", s.Initdata.Alg, s.Initdata.Digest)
	}
	if r := s.Register; r != nil {
		line("register", "%s of %s, %s, %s", r.Name, r.Device, r.State, count(r.Events, "event", "events"))
		for _, bank := range slices.Sorted(maps.Keys(r.Values)) {
			line("", "%s %s", bank, r.Values[bank])
		}
		if r.Error != "" {
			line("", "%s", r.Error)
		}
	}
	line("event log", "%s", s.Log)
	line("version", "%s", s.Version)
	for _, held := range s.Rules {
		line("rules", "%s", held)
	}
	line("generation", "%d", s.Generation)
	allowed, denied := uint64(0), uint64(0)
	for _, r := range s.Requests {
		allowed, denied = allowed+r.Allowed, denied+r.Denied
	}
	line("requests", "%d allowed, %d denied", allowed, denied)
	for _, r := range s.Requests {
		if r.Denied > 0 {
			line("", "%s: %d denied", r.Request, r.Denied)
		}
	}
	line("running", "%s", yes(s.Ran))
	if s.PodComplete != nil {
		line("pod", "%s", map[bool]string{true: "complete", false: "not complete"}[*s.PodComplete])
	}
	writeRecord(line, s.Record)
	return b.String()
}

// writeRecord says how far the launch record is, if there is one.
func writeRecord(line func(label, format string, args ...any), r *record.State) {
	if r != nil {
		line("record", "%s, head %s", count(r.Events, "event", "events"), r.Head)
		if r.Broken != "" {
			line("", "broken: container %s is gone", r.Broken)
		}
		if r.Full || r.Behind {
			line("", "%s", map[bool]string{true: "full: more has happened", false: "behind: something that happened is not recorded"}[r.Full])
		}
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
