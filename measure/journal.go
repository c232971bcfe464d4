// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"fmt"
	"sync"

	"portcullis/measure/eventlog"
)

// MaxMismatches is how many failed comparisons a [Journal] records. The host can cause any number of them; the log must not
// grow with it.
const MaxMismatches = 32

// Journal writes the event log on a platform without a register: the launch fixed the value that an event is compared with.
// It is safe for concurrent use.
type Journal struct {
	mu       sync.Mutex
	path     string
	bootID   string
	boottime func() uint64
}

// Comparison is an event held against a launch field.
type Comparison struct {
	Event Event
	Field string // "hostdata" or "mrconfigid"
	Value []byte // the field's value, whole
	Match bool   // the field binds the event
}

// NewJournal uses Log, BootID and Boottime of the configuration and nothing else.
func NewJournal(cfg Config) (*Journal, error) {
	if cfg.Log == "" {
		return nil, errors.New("no event log file configured")
	}
	if cfg.Boottime == nil {
		cfg.Boottime = boottime
	}
	return &Journal{path: cfg.Log, bootID: cfg.BootID, boottime: cfg.Boottime}, nil
}

// Record makes the comparison durable in the log; the error is [ErrLog]. A match that is the latest match already is not
// written again, nor is a mismatch after [MaxMismatches] of them; the zero Record is returned then.
func (j *Journal) Record(c Comparison) (eventlog.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	log, err := eventlog.Open(j.path)
	if err != nil {
		return eventlog.Record{}, logError(err)
	}
	defer log.Close()
	if log.Marked() {
		// A dead process wrote the last record, or less; there is no register that it could disagree with.
		if err := log.Commit(); err != nil {
			return eventlog.Record{}, logError(err)
		}
	}
	if otherBoot(j.bootID, log.Records()) {
		return eventlog.Record{}, logError(fmt.Errorf("%s is of another boot", j.path))
	}
	if logged(log.Records(), c) {
		return eventlog.Record{}, nil
	}
	rec := newRecord(len(log.Records()), c.Event, j.bootID, j.boottime())
	rec.Digests = []eventlog.Digest{{HashAlg: c.Event.Alg, Digest: rec.Content.Digest()}}
	rec.Content.Field, rec.Content.Value, rec.Content.Match = c.Field, c.Value, &c.Match
	if err := log.Mark(); err != nil {
		return eventlog.Record{}, logError(err)
	}
	if err := log.Append(rec); err != nil {
		return eventlog.Record{}, logError(also(err, log.Commit()))
	}
	if err := log.Commit(); err != nil {
		return eventlog.Record{}, logError(err)
	}
	return rec, nil
}

// logged says whether the log needs no record of the comparison.
func logged(records []eventlog.Record, c Comparison) bool {
	mismatches := 0
	var latest string
	for _, r := range records {
		switch {
		case r.Content.Match == nil:
		case *r.Content.Match:
			latest = eventlog.Hex(r.Content.Digest()).String()
		default:
			mismatches++
		}
	}
	if c.Match {
		return latest != "" && latest == eventlog.Hex(c.Event.Digest).String()
	}
	return mismatches >= MaxMismatches
}
