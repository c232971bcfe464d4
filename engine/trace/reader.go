// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"portcullis/internal/strictjson"
)

// MaxLine bounds one line, or one element of an array, in bytes: the longest request, 4 MiB, written as an array of numbers.
const MaxLine = 32 << 20

// Record is one request of a recording.
type Record struct {
	Line    int // 1-based; in an array the number of the element
	Kind    string
	Request json.RawMessage // a JSON object
	Case    string          // a test's name for it, or empty
	Allowed *bool           // what was decided or is expected; nil if the recording does not say
	Reason  string
	Time    time.Time // zero if the recording does not say
	Agent   Answer    // what the agent answered; empty if the recording does not say
	Error   string    // of an answer that refused, or empty
	// Observed: no request but an answer that the policy was shown. Kind is its entry point, such as WaitProcessResponse.
	Observed bool

	id uint64 // where an answer is to follow
}

// Answer is what the agent answered to a request that it got.
type Answer string

// Values of Answer.
const (
	Done    Answer = "done"    // carried out
	Refused Answer = "refused" // nothing happened
	Unknown Answer = "unknown" // no answer came
)

// LineError is a line that is none of the known formats. Reading can go on behind it.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("recording line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// What a LineError wraps.
var (
	ErrTooLong = fmt.Errorf("longer than %d bytes", MaxLine)
	ErrFormat  = errors.New("not a request of a known format")
)

// DeniedError is the text of a denial, as a kubelet's event or a runtime's log has it: it names the request but does not hold it.
type DeniedError struct {
	Kind   string // entry point
	Reason string // as the guest gave it, or empty
}

func (e *DeniedError) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = ": " + e.Reason
	}
	return fmt.Sprintf("the text of an event, which names a denied %s but does not hold it%s; "+
		"the requests are in the decision log of a debug guest, /tmp/policy.txt", e.Kind, reason)
}

// Reader reads requests from a recording, one at a time, in memory bounded by MaxLine. The bytes themselves say which form it has:
//
//   - lines {"kind","request"[,"case","allowed","reason","time"]}, which this package and the agent write, where "data" may stand
//     for "request"; lines that hold a decision {"allowed","ops"} in place of a request, or no kind, are passed over;
//   - a JSON array of such objects, where "description" may stand for "case";
//   - the lines ["ep":"X",{"input":{...}}], and ["ep":"X",{...}], of older agents, which are no JSON. A decision that follows as a
//     line of the same form is passed over.
//
// What the agent answered stands in a later line of the log; it is looked for up to maxAhead records ahead.
//
// A last line that was cut off is passed over. A line with the text of a denial is a *LineError that wraps a *DeniedError.
type Reader struct {
	// Observations has Next also give the records that are [Record.Observed].
	Observations bool

	in        *bufio.Reader
	array     *json.Decoder // nil outside an array
	meter     *meter
	line      int
	truncated bool
	started   bool
	passed    int
	ahead     []aheadRecord
	aheadSize int // bytes of their requests
}

// NewReader reads a recording from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, 64<<10)}
}

// Truncated says, after io.EOF, whether the recording was cut off in the middle of its last request.
func (r *Reader) Truncated() bool { return r.truncated }

// PassedOver counts the entries so far that held something else than a request: decisions, lines about the log, a last line that
// was cut off. Blank lines are none.
func (r *Reader) PassedOver() int { return r.passed }

// read gives the next request that is read, without its answer.
func (r *Reader) read() (Record, error) {
	if !r.started {
		r.started = true
		if err := r.detect(); err != nil {
			return Record{}, err
		}
	}
	for {
		next := r.nextLine
		if r.array != nil {
			next = r.nextElement
		}
		rec, ok, err := next()
		if ok || err != nil {
			return rec, err
		}
	}
}

// pass counts an entry that is no request.
func (r *Reader) pass() (Record, bool, error) {
	r.passed++
	return Record{}, false, nil
}

// detect opens an array: it begins with a bracket, but unlike the old lines none before "ep".
func (r *Reader) detect() error {
	for {
		c, err := r.in.ReadByte()
		if err != nil {
			return err
		}
		switch c {
		case '\n':
			r.line++
		case ' ', '\t', '\r':
		default:
			if err := r.in.UnreadByte(); err != nil {
				return err
			}
			if head, _ := r.in.Peek(len(oldPrefix)); c != '[' || bytes.Equal(head, oldPrefix) {
				return nil
			}
			r.line = 0
			r.meter = &meter{in: r.in, left: MaxLine}
			r.array = json.NewDecoder(r.meter)
			_, err := r.array.Token()
			return err
		}
	}
}

// nextElement reads one element of an array.
func (r *Reader) nextElement() (rec Record, ok bool, err error) {
	r.meter.left = MaxLine
	if !r.array.More() {
		_, err := r.array.Token()
		return Record{}, false, r.endArray(err)
	}
	var raw json.RawMessage
	if err := r.array.Decode(&raw); err != nil {
		return Record{}, false, r.endArray(err)
	}
	r.line++
	return r.parse(raw)
}

// endArray is the end of the recording: nothing can be read behind a broken element.
func (r *Reader) endArray(err error) error {
	r.array, r.in = nil, bufio.NewReader(bytes.NewReader(nil))
	switch {
	case err == nil:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.truncated = true
		r.passed++
		return io.EOF
	}
	return &LineError{Line: r.line + 1, Err: err}
}

// meter fails rather than let the decoder buffer more than one element may have.
type meter struct {
	in   io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, ErrTooLong
	}
	n, err := m.in.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// nextLine reads one line.
func (r *Reader) nextLine() (rec Record, ok bool, err error) {
	text, ended, err := r.readLine()
	if err != nil {
		return Record{}, false, err
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return Record{}, false, nil
	}
	rec, ok, err = r.parse(text)
	if err != nil && !ended && !errors.As(err, new(*DeniedError)) && !errors.Is(err, strictjson.ErrTwice) { // which is whole
		r.truncated = true
		return r.pass()
	}
	return rec, ok, err
}

// readLine reads up to a newline (ended) or the end of the recording. It passes over a line that is too long.
func (r *Reader) readLine() (text []byte, ended bool, err error) {
	long := false
	for {
		part, err := r.in.ReadSlice('\n')
		if !long {
			text = append(text, part...)
		}
		if len(text) > MaxLine {
			text, long = nil, true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && (len(text) > 0 || long):
		case err != nil:
			return nil, false, err
		}
		r.line++
		if long {
			return nil, false, &LineError{Line: r.line, Err: ErrTooLong}
		}
		return text, err == nil, nil
	}
}

// oldPrefix begins a line of older agents.
var oldPrefix = []byte(`["ep":`)

// parse reads one entry, as a line or an element. It is not ok for one to pass over.
func (r *Reader) parse(text []byte) (rec Record, ok bool, err error) {
	if bytes.HasPrefix(text, oldPrefix) {
		return r.parseOld(text)
	}
	var entry struct {
		ID      uint64          `json:"id"`
		Agent   Answer          `json:"agent"`
		Error   string          `json:"error"`
		Shown   string          `json:"observed"`
		Kind    *string         `json:"kind"`
		Request json.RawMessage `json:"request"`
		Data    json.RawMessage `json:"data"` // "request" under another name
		Case    string          `json:"case"`
		Title   string          `json:"description"` // what the agent's own test cases call it
		Allowed *bool           `json:"allowed"`
		Reason  string          `json:"reason"`
		Time    time.Time       `json:"time"`
	}
	text = bytes.TrimSuffix(text, []byte{','})
	if err := strictjson.Unmarshal(text, &entry); err != nil {
		if denied := deniedText.FindSubmatch(text); denied != nil {
			return Record{}, false, &LineError{Line: r.line, Err: &DeniedError{Kind: string(denied[1]), Reason: string(denied[2])}}
		}
		return Record{}, false, &LineError{Line: r.line, Err: fmt.Errorf("%w: %w", ErrFormat, err)}
	}
	if entry.Request == nil {
		entry.Request = entry.Data
	}
	if entry.Kind == nil && entry.ID != 0 && entry.Agent != "" {
		r.answered(entry.ID, entry.Agent, entry.Error)
		return Record{}, false, nil
	}
	if observed := entry.Shown != "" && isObject(entry.Request); observed && r.Observations {
		return Record{Line: r.line, Kind: entry.Shown, Request: entry.Request, Time: entry.Time, Observed: true}, true, nil
	}
	if entry.Kind == nil || entry.Request == nil || isDecision(entry.Request) {
		return r.pass()
	}
	if !isObject(entry.Request) {
		return Record{}, false, &LineError{Line: r.line, Err: ErrFormat}
	}
	return Record{
		Line: r.line, Kind: *entry.Kind, Request: entry.Request, Case: cmp.Or(entry.Case, entry.Title),
		Allowed: entry.Allowed, Reason: entry.Reason, Time: entry.Time, id: entry.ID, Agent: entry.Agent, Error: entry.Error,
	}, true, nil
}

// deniedText is what a denial is on the wire, wherever it was quoted.
var deniedText = regexp.MustCompile(`\b([A-Z][A-Za-z]{1,60}) is blocked by policy(?:: ([^\n"]{1,1000}))?`)

// parseOld reads ["ep":"X",{...}], which without the name "ep" is a JSON array.
func (r *Reader) parseOld(text []byte) (rec Record, ok bool, err error) {
	text = bytes.TrimSuffix(text, []byte{','})
	array := append([]byte{'['}, text[len(oldPrefix):]...)
	var elems []json.RawMessage
	rec.Line = r.line
	if err := strictjson.Unmarshal(array, &elems); err != nil {
		return Record{}, false, &LineError{Line: r.line, Err: fmt.Errorf("%w: %w", ErrFormat, err)}
	}
	if len(elems) != 2 || strictjson.Unmarshal(elems[0], &rec.Kind) != nil || !isObject(elems[1]) {
		return Record{}, false, &LineError{Line: r.line, Err: ErrFormat}
	}
	if isDecision(elems[1]) {
		return r.pass()
	}
	rec.Request = elems[1]
	var wrapped map[string]json.RawMessage
	if err := strictjson.Unmarshal(elems[1], &wrapped); err != nil {
		return Record{}, false, &LineError{Line: r.line, Err: ErrFormat}
	}
	if input, has := wrapped["input"]; has && len(wrapped) == 1 && isObject(input) {
		rec.Request = input
	}
	return rec, true, nil
}

func isObject(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }

// isDecision recognises {"allowed": bool, "ops": ...} in the place of a request.
func isDecision(raw json.RawMessage) bool {
	if !bytes.Contains(raw, []byte(`"allowed"`)) {
		return false
	}
	var m map[string]json.RawMessage
	if strictjson.Unmarshal(raw, &m) != nil {
		return false
	}
	_, hasAllowed := m["allowed"]
	_, hasOps := m["ops"]
	return hasAllowed && (len(m) == 1 || len(m) == 2 && hasOps)
}
