// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what policyd needs to go on after it was killed beside a running agent: the active policy, its
// state, and the container ids that were used in this boot.
//
// It lives in a directory of the guest's /run that only root can reach, so it ends with the boot. Each change of the record
// replaces a whole file by rename: what is read back was written whole. An id is appended to a file of its own.
package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"portcullis/engine"
	"portcullis/internal/atomicfile"
	"portcullis/internal/bounded"
	"portcullis/internal/strictjson"
)

// Bounds of the two files, in bytes.
const (
	maxRecord = 4 << 20
	maxPolicy = engine.MaxText
)

var (
	// ErrNone says that there is no journal of this boot.
	ErrNone = errors.New("no journal of this boot")
	// ErrCorrupt says that there is one, and it cannot be used.
	ErrCorrupt = errors.New("journal is not usable")
	// ErrFull says that the journal is at its bound.
	ErrFull = errors.New("journal is full")
)

// Record is the journal's content but for the policy's text.
type Record struct {
	Version int    `json:"version"`
	BootID  string `json:"boot_id"` // of /proc/sys/kernel/random/boot_id
	// Policy is the SHA-256 of the active policy's text in hex, empty while the default policy is active.
	Policy string `json:"policy"`
	// Ran says that the active policy allowed a request other than SetPolicy, Check and Version.
	Ran bool `json:"ran"`
	// State is the policy's state; while a request that changes it is with the agent, both outcomes are possible.
	State engine.State `json:"state"`
	// Fragments are those that the policy decides with, in the order in which they were accepted: the SHA-256 of each envelope in
	// hex.
	Fragments []string `json:"fragments,omitempty"`
	// Pending is one that is being measured: what the register holds says whether it is in force.
	Pending string `json:"pending,omitempty"`
	// SVNs are the highest that were accepted in this boot, by issuer and feed.
	SVNs map[string]uint64 `json:"svns,omitempty"`
}

// Journal is a journal directory in use by one process. Its methods may be called concurrently.
type Journal struct {
	dir string

	mu     sync.Mutex // taken last: nothing of ours is called under it
	record Record
	kept   map[string][]byte // fragments of a journal without a directory
	ids    ids
}

const (
	version    = 2
	recordFile = "journal.json"
)

// policyPath names a policy's file after its digest, so that a record always finds the text it speaks of.
func (j *Journal) policyPath(digest string) string {
	return filepath.Join(j.dir, "policy-"+digest+".rego")
}

// Open makes dir (mode 0700) if it is not there and starts from an empty record; Load reads what an earlier process left.
// An empty dir keeps the journal in memory only: for a gate that does not outlive its agent.
func Open(dir, bootID string) (*Journal, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
		if err := atomicfile.RemoveLeftovers(filepath.Join(dir, recordFile)); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	return &Journal{dir: dir, record: Record{Version: version, BootID: bootID}, ids: ids{path: idsPath(dir, bootID)}}, nil
}

// Load reads the record and the policy text of an earlier process of this boot and makes them current. It returns ErrNone
// or ErrCorrupt when there is none, or none that can be trusted to be whole.
func (j *Journal) Load() (Record, []byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dir == "" {
		return Record{}, nil, ErrNone
	}
	raw, err := bounded.ReadRegular(filepath.Join(j.dir, recordFile), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil, ErrNone
	}
	if err != nil {
		return Record{}, nil, fmt.Errorf("load journal: %w: %w", ErrCorrupt, err)
	}
	r, err := decode(raw)
	if err != nil {
		return Record{}, nil, fmt.Errorf("load journal: %w: %w", ErrCorrupt, err)
	}
	if r.BootID != j.record.BootID {
		return Record{}, nil, ErrNone
	}
	text, err := j.loadPolicy(r.Policy)
	if err != nil {
		return Record{}, nil, fmt.Errorf("load journal: %w: %w", ErrCorrupt, err)
	}
	if err := j.ids.load(); err != nil {
		return Record{}, nil, fmt.Errorf("load journal: %w: %w", ErrCorrupt, err)
	}
	j.record = r
	return r, text, nil
}

func decode(raw []byte) (Record, error) {
	var r Record
	if err := strictjson.Known(raw, &r); err != nil {
		return r, fmt.Errorf("decode record: %w", err)
	}
	if r.Version != version {
		return r, fmt.Errorf("record has version %d, want %d", r.Version, version)
	}
	return r, nil
}

func (j *Journal) loadPolicy(digest string) ([]byte, error) {
	if digest == "" {
		return nil, nil
	}
	text, err := bounded.ReadRegular(j.policyPath(digest), maxPolicy)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digest {
		return nil, errors.New("policy file is not the one of the record")
	}
	return text, nil
}

// Record returns the current record.
func (j *Journal) Record() Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.record
}

// SetState records the policy's state.
func (j *Journal) SetState(s engine.State) error {
	return j.Update(func(r *Record) error {
		r.State = s
		return nil
	})
}

// Update changes the record. The change counts, on disk and in memory, only if Update returns nil.
func (j *Journal) Update(change func(*Record) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.update(change)
}

func (j *Journal) update(change func(*Record) error) error {
	r := j.record
	if err := change(&r); err != nil {
		return err
	}
	if err := j.write(r); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.record = r
	return nil
}

// SetPolicy records a newly active policy with its first state. The text is there before the record speaks of it.
func (j *Journal) SetPolicy(text []byte, state engine.State) error {
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])

	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dir != "" {
		if err := atomicfile.Write(j.policyPath(digest), text, 0o600); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	old := j.record.Policy
	err := j.update(func(r *Record) error {
		r.Policy, r.Ran, r.State, r.Fragments, r.Pending = digest, false, state, nil, ""
		return nil
	})
	if err != nil || j.dir == "" {
		return err
	}
	if err := j.removeFragments(nil); err != nil {
		return err
	}
	if old == "" || old == digest {
		return nil
	}
	if err := os.Remove(j.policyPath(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old policy from journal: %w", err)
	}
	return nil
}

func (j *Journal) write(r Record) error {
	if j.dir == "" {
		return nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(raw) > maxRecord {
		return ErrFull
	}
	return atomicfile.Write(filepath.Join(j.dir, recordFile), raw, 0o600)
}
