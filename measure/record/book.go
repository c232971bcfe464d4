// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// Writer takes the events of a record into a register and the log beside it, or into the log alone. *measure.Register is one, with
// Config.Pod set.
type Writer interface {
	// Records returns what is written, oldest first, once what a dead process left behind is repaired.
	Records(ctx context.Context) ([]eventlog.Record, error)
	// Update writes one more. It is written when Update returns nil; the same as the latest is not written again.
	Update(ctx context.Context, e measure.Event) (eventlog.Record, error)
}

// timeout bounds the writing of one fact, and of those that it brings with it.
const timeout = 20 * time.Second

// ErrBehind says that a fact that has taken effect could not be recorded, so that no further one may.
var ErrBehind = errors.New("the launch record is behind what has happened")

// Book writes the record of one pod. Its methods may be called concurrently.
type Book struct {
	writer   Writer
	complete func(context.Context) bool // by the policy's own word
	onFact   func(eventlog.Record)

	mu      sync.Mutex // taken by who records; the policy's state may be read under it
	pod     Pod
	head    eventlog.Hex
	counts  map[repeat]uint64 // repetitions that are not recorded yet
	pending []Fact            // have taken effect and are not recorded
}

// Open goes on with what the writer has. complete asks the policy whether every container of it was started. onFact, if not nil, is
// called with each record that is in the register: those that were there first.
func Open(ctx context.Context, w Writer, complete func(context.Context) bool, onFact func(eventlog.Record)) (*Book, error) {
	records, err := w.Records(ctx)
	if err != nil {
		return nil, fmt.Errorf("open launch record: %w", err)
	}
	facts, err := Read(records)
	if err != nil {
		return nil, fmt.Errorf("open launch record: %w", err)
	}
	b := &Book{writer: w, complete: complete, onFact: onFact, head: make(eventlog.Hex, 32), counts: map[repeat]uint64{}}
	if onFact == nil {
		b.onFact = func(eventlog.Record) {}
	}
	for i, f := range facts {
		if err := b.pod.Apply(f); err != nil {
			return nil, fmt.Errorf("open launch record: record %d: %w", records[i].Num, err)
		}
		b.head = records[i].Content.Next
		b.onFact(records[i])
	}
	return b, nil
}

// Before records a fact that is about to take effect. After an error it must not.
func (b *Book) Before(ctx context.Context, f Fact) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flush(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrBehind, err)
	}
	if err := b.note(ctx, f); err != nil {
		return err
	}
	return b.noteLoss(ctx)
}

// Refused records that a fact that was recorded has not taken effect.
func (b *Book) Refused(ctx context.Context, f Fact) error {
	switch f.Kind {
	case Created, Started, Removed:
		return b.Happened(ctx, Fact{Kind: Failed, ID: f.ID, Name: f.Name, Of: f.Kind})
	}
	return nil
}

// Happened records a fact that has taken effect already. One that cannot be written is tried again before the next.
func (b *Book) Happened(ctx context.Context, f Fact) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	waits := slices.ContainsFunc(b.pending, func(p Fact) bool { return p.Kind == f.Kind && p.ID == f.ID && p.Of == f.Of })
	if b.pod.news(f) && !waits {
		b.pending = append(b.pending, f)
	}
	return b.flush(ctx)
}

// Settle records that the pod is complete, or is so no more, if that is the case and not recorded. It is called when a container has
// started, and when a book was opened.
func (b *Book) Settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flush(ctx); err != nil {
		return err
	}
	if b.pod.Complete || b.pod.Full || !b.pod.whole() || !b.complete(ctx) {
		return nil
	}
	return b.note(ctx, Fact{Kind: Complete})
}

// flush records what has happened and is not recorded, and a loss that has not been.
func (b *Book) flush(ctx context.Context) error {
	for len(b.pending) > 0 {
		if err := b.note(ctx, b.pending[0]); err != nil {
			return err
		}
		b.pending = b.pending[1:]
	}
	return b.noteLoss(ctx)
}

// noteLoss records that a complete pod has lost a container.
func (b *Book) noteLoss(ctx context.Context) error {
	if c, ok := b.pod.gone(); ok {
		return b.note(ctx, Fact{Kind: Broken, ID: c.ID, Name: c.Name, Of: c.end()})
	}
	return nil
}

// end names what ended the container.
func (c *Container) end() Kind {
	switch {
	case c.Ended:
		return Ended
	case c.Removed:
		return Removed
	case c.Signalled:
		return Signalled
	}
	return Failed
}

// note records one fact, and before the end of a container how often what was repeated in it was.
func (b *Book) note(ctx context.Context, f Fact) error {
	if c := b.pod.Container(f.ID); c != nil {
		f.Name = c.Name
	}
	if b.pod.Full {
		return nil
	}
	if !b.pod.news(f) {
		if f.Kind == Exec || f.Kind == Signalled {
			b.counts[f.repeat()]++
		}
		return nil
	}
	if f.Kind == Ended || f.Kind == Removed {
		if err := b.noteCounts(ctx, f.ID); err != nil {
			return err
		}
	}
	return b.write(ctx, f)
}

func (b *Book) noteCounts(ctx context.Context, id string) error {
	for r, n := range b.counts {
		if r.id != id {
			continue
		}
		f := Fact{Kind: Repeated, ID: r.id, Name: b.pod.Container(id).Name, Of: r.of, Digest: r.digest, Signal: r.signal, Count: n}
		if err := b.write(ctx, f); err != nil {
			return err
		}
		delete(b.counts, r)
	}
	return nil
}

// write brings a fact into the register and makes it count. The last place of the record is for the word that there is more.
func (b *Book) write(ctx context.Context, f Fact) error {
	if b.pod.Full {
		return nil
	}
	if b.pod.Facts >= MaxFacts-1 {
		f = Fact{Kind: More}
	}
	e, err := f.Event()
	if err != nil {
		return err
	}
	record, err := b.writer.Update(ctx, e)
	if err != nil {
		return fmt.Errorf("record %s: %w", f.Kind, err)
	}
	b.head = record.Content.Next
	b.onFact(record)
	return b.pod.Apply(f)
}

// State is a record at one moment.
type State struct {
	Complete bool   `json:"complete"`         // the pod is, and the record says so
	Broken   string `json:"broken,omitempty"` // the container without which it is not complete any more
	Full     bool   `json:"full,omitempty"`   // more has happened than the record holds
	Behind   bool   `json:"behind,omitempty"` // something has happened that could not be recorded
	Events   int    `json:"events"`
	Head     string `json:"head"`             // value that the events lead to, sha256, hexadecimal
	Policy   string `json:"policy,omitempty"` // digest of the policy or initdata in force, hexadecimal
}

// State says how far the record has come. It writes nothing.
func (b *Book) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{Complete: b.pod.Complete && len(b.pending) == 0, Full: b.pod.Full, Behind: len(b.pending) > 0, Events: b.pod.Facts, Head: b.head.String()}
	if f := b.pod.BrokenBy; f != nil {
		s.Broken = f.Name
	}
	if n := len(b.pod.Policies); n > 0 {
		s.Policy = b.pod.Policies[n-1].Digest
	}
	return s
}
