// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"portcullis/measure/eventlog"
)

// Chain keeps the events of a pod's life in a log alone, each chained to the one before as a register would: for a guest without one.
// Nothing outside the process holds the chain's head. Who believes it believes whoever states it, see [eventlog.Head].
type Chain struct {
	cfg Config

	mu    sync.Mutex
	known eventlog.Known
}

// NewChain uses Log, BootID, Boottime and OnStep of the configuration and nothing else.
func NewChain(cfg Config) (*Chain, error) {
	if cfg.Log == "" {
		return nil, errors.New("no event log file configured")
	}
	if cfg.Boottime == nil {
		cfg.Boottime = boottime
	}
	if cfg.OnStep == nil {
		cfg.OnStep = func(Step) {}
	}
	return &Chain{cfg: cfg}, nil
}

// open opens the log and returns its events of the pod. A record that a dead process wrote whole counts.
func (c *Chain) open() (*eventlog.File, []eventlog.Record, error) {
	log, err := eventlog.OpenKnown(c.cfg.Log, &c.known)
	if err != nil {
		return nil, nil, logError(err)
	}
	if log.Marked() {
		err = log.Commit()
	}
	if err == nil && otherBoot(c.cfg.BootID, log.Records()) {
		err = fmt.Errorf("%s is of another boot", c.cfg.Log)
	}
	if err != nil {
		log.Close()
		return nil, nil, logError(err)
	}
	_, pod := eventlog.Split(log.Records())
	return log, pod, nil
}

// Records returns the events, oldest first.
func (c *Chain) Records(context.Context) ([]eventlog.Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, pod, err := c.open()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := eventlog.Head(pod); err != nil {
		return nil, logError(err)
	}
	return pod, nil
}

// Update makes an event the last of the chain, durably. The same as the last one before has no effect.
func (c *Chain) Update(_ context.Context, e Event) (eventlog.Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.OnStep(StepRead)
	log, pod, err := c.open()
	if err != nil {
		return eventlog.Record{}, err
	}
	defer log.Close()
	prev := make(eventlog.Hex, 32)
	if n := len(pod); n > 0 {
		if pod[n-1].Content.Event == e.Text {
			return pod[n-1], nil
		}
		prev = pod[n-1].Content.Next
	}
	rec := newRecord(len(log.Records()), e, c.cfg.BootID, c.cfg.Boottime())
	rec.Digests = []eventlog.Digest{{HashAlg: "sha256", Digest: rec.Content.Digest()}}
	next, err := eventlog.Extend("sha256", prev, rec.Content.SHA256)
	if err != nil {
		return eventlog.Record{}, err
	}
	rec.Content.Prev, rec.Content.Next = prev, next
	op := operation{cfg: &c.cfg, log: log}
	if err := op.write(rec); err != nil {
		return eventlog.Record{}, err
	}
	return rec, op.commit()
}
