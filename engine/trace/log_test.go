// SPDX-License-Identifier: Apache-2.0

package trace_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/engine/trace"
)

func open(t *testing.T, path string, opts trace.Options) *trace.Log {
	t.Helper()
	l, err := trace.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func event(kind, request string) trace.Event {
	return trace.Event{Kind: kind, Request: json.RawMessage(request), Allowed: true, Time: time.Unix(1, 5).UTC()}
}

// readAll reads a recording to its end and fails on a line that cannot be understood.
func readAll(t *testing.T, path string) []trace.Record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []trace.Record
	for r := trace.NewReader(f); ; {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
}

func TestWhatIsRecordedReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, trace.Options{})
	ev := event("ExecProcessRequest", `{"data":[0,255,10]}`)
	ev.Allowed, ev.Reason = false, "no such command"
	l.Record(ev)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, path)
	if len(got) != 1 {
		t.Fatalf("%d records, want 1", len(got))
	}
	r := got[0]
	if r.Kind != ev.Kind || string(r.Request) != string(ev.Request) || *r.Allowed || r.Reason != ev.Reason || !r.Time.Equal(ev.Time) {
		t.Errorf("got %+v", r)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
	}
}

func TestPolledKindsAndThePolicyAreLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, trace.Options{})
	for _, kind := range []string{"StatsContainerRequest", "ReadStreamRequest", "SetPolicyRequest", "CheckRequest"} {
		l.Record(event(kind, `{}`))
	}
	_ = l.Close()
	if got := readAll(t, path); len(got) != 1 || got[0].Kind != "CheckRequest" || l.Dropped() != 0 {
		t.Errorf("got %+v, dropped %d", got, l.Dropped())
	}
}

func TestOpenRefusesWhatIsNotItsOwnRegularFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(path string) error{
		"a link":          func(p string) error { return os.Symlink(file, p) },
		"a dangling link": func(p string) error { return os.Symlink(filepath.Join(dir, "none"), p) },
		"a hard link":     func(p string) error { return os.Link(file, p) },
		"a FIFO":          func(p string) error { return unix.Mkfifo(p, 0o600) },
		"a directory":     func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := place(path); err != nil {
				t.Fatal(err)
			}
			if l, err := trace.Open(path, trace.Options{}); err == nil {
				_ = l.Close()
				t.Error("opened")
			}
		})
	}
}

func TestOpenAppendsAndTightensTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(`{"kind":"A","request":{}}`+"\n"+`{"kind":"cut`), 0o644); err != nil {
		t.Fatal(err)
	}
	l := open(t, path, trace.Options{})
	l.Record(event("B", `{}`))
	_ = l.Close()
	text, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[2], `{"kind":"B"`) {
		t.Errorf("got %q", lines)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestAFullLogKeepsItsBeginningAndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const limit = 4096
	l := open(t, path, trace.Options{MaxBytes: limit})
	for i := range 200 {
		l.Record(event(fmt.Sprintf("K%d", i), `{"x":"`+strings.Repeat("y", 50)+`"}`))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if len(text) > limit {
		t.Errorf("%d bytes, want at most %d", len(text), limit)
	}
	got := readAll(t, path)
	if len(got) == 0 || got[0].Kind != "K0" || !strings.Contains(string(text), `"full":true`) {
		t.Errorf("%d records, end %q", len(got), text[max(0, len(text)-200):])
	}
	if l.Dropped() != uint64(200-len(got)) {
		t.Errorf("dropped %d of 200, %d in the file", l.Dropped(), len(got))
	}
}

func TestAFullQueueDropsAndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, trace.Options{QueueBytes: 100})
	l.Record(event("Big", `{"x":"`+strings.Repeat("y", 200)+`"}`))
	l.Record(event("Small", `{}`))
	_ = l.Close()
	text, _ := os.ReadFile(path)
	if l.Dropped() != 1 || !strings.Contains(string(text), `"dropped":1`) {
		t.Errorf("dropped %d, file %s", l.Dropped(), text)
	}
	if got := readAll(t, path); len(got) != 1 || got[0].Kind != "Small" {
		t.Errorf("got %+v", got)
	}
}

func TestEveryEventIsWrittenOrCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, trace.Options{QueueBytes: 10_000})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				l.Record(event("K", `{"a":1}`))
			}
		})
	}
	wg.Wait()
	_ = l.Close()
	l.Record(event("late", `{}`))
	_ = l.Close()
	if got := uint64(len(readAll(t, path))) + l.Dropped(); got != 4000 {
		t.Errorf("%d written or counted, want 4000", got)
	}
}
