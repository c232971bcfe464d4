// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"errors"
	"io"
)

// aheadRecord was read before it is asked for, or is the error of reading there.
type aheadRecord struct {
	Record
	err error
}

// What is read ahead of the record whose answer is looked for: records, and bytes of their requests.
const (
	maxAhead      = 256
	maxAheadBytes = 8 << 20
)

// Next gives the next request, with its answer. It is io.EOF at the end, a *LineError for a line that cannot be understood, after
// which it may be called again, or an error of reading.
func (r *Reader) Next() (Record, error) {
	for len(r.ahead) == 0 || r.awaits(r.ahead[0].Record) {
		rec, err := r.read()
		r.ahead = append(r.ahead, aheadRecord{rec, err})
		r.aheadSize += len(rec.Request)
	}
	first := r.ahead[0]
	if !errors.Is(first.err, io.EOF) { // the end stays the end
		r.ahead = r.ahead[1:]
		r.aheadSize -= len(first.Request)
	}
	return first.Record, first.err
}

// awaits says whether to read on for the answer to the first record.
func (r *Reader) awaits(first Record) bool {
	return first.id != 0 && first.Agent == "" && r.ahead[len(r.ahead)-1].err == nil &&
		len(r.ahead) < maxAhead && r.aheadSize < maxAheadBytes
}

// answered gives an answer to the record that is held back for it: the last of that id, as a log that was opened again counts from
// one again. What has no such record came too late.
func (r *Reader) answered(id uint64, agent Answer, reason string) {
	for i := len(r.ahead) - 1; i >= 0; i-- {
		if held := &r.ahead[i]; held.id == id {
			held.Agent, held.Error = agent, reason
			return
		}
	}
}
