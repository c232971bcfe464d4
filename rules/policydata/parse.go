package policydata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// ErrForm is returned by Parse for text that is none of the three forms.
var ErrForm = errors.New("no policy_data found")

// ErrUpstream is returned by Parse for policy_data that is not in this project's shape.
var ErrUpstream = errors.New("it is in the shape of upstream's genpolicy, not in this project's")

// Form is how a policy text carries its policy_data.
type Form string

// Values of Form.
const (
	FormFull    Form = "full"
	FormCompact Form = "compact"
	FormBare    Form = "bare" // the JSON alone
)

// Document is a parsed policy text.
type Document struct {
	Form   Form
	Rules  string // full: the bytes that precede policy_data
	Digest string // compact: the digest as written; full: Digest of Rules; bare: ""
	Data   []byte // policy_data, JSON
}

const assignment = "policy_data := "

var compactHead = regexp.MustCompile(`^package agent_policy\n+rules := "(sha256:[0-9a-f]{64})"\n+$`)

// Split finds the parts of a policy text without judging policy_data, which may
// be in another shape than this package's.
func Split(text []byte) (Document, error) {
	if trimmed := bytes.TrimSpace(text); bytes.HasPrefix(trimmed, []byte("{")) {
		return Document{Form: FormBare, Data: trimmed}, validJSON(trimmed)
	}
	at := bytes.LastIndex(text, []byte("\n"+assignment))
	if at < 0 {
		return Document{}, fmt.Errorf("parse policy: %w", ErrForm)
	}
	before, data := text[:at+1], bytes.TrimSpace(text[at+1+len(assignment):])
	doc := Document{Form: FormFull, Data: data, Rules: string(before), Digest: Digest(string(before))}
	if m := compactHead.FindSubmatch(before); m != nil {
		doc = Document{Form: FormCompact, Data: data, Digest: string(m[1])}
	}
	return doc, validJSON(data)
}

// Parse reads policy_data from a full or compact policy text or from bare JSON.
// Unknown keys, a second document and an unknown version are errors; the
// policy's own consistency is Validate's to judge.
func Parse(text []byte) (*Policy, Document, error) {
	doc, err := Split(text)
	if err != nil {
		return nil, doc, err
	}
	if doc.IsUpstream() {
		return nil, doc, fmt.Errorf("parse policy_data: %w", ErrUpstream)
	}
	dec := json.NewDecoder(bytes.NewReader(doc.Data))
	dec.DisallowUnknownFields()
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, doc, fmt.Errorf("parse policy_data: %w", err)
	}
	if p.Version != Version {
		return nil, doc, fmt.Errorf("parse policy_data: version %d, want %d", p.Version, Version)
	}
	for name, c := range p.Containers {
		if c == nil {
			return nil, doc, fmt.Errorf("parse policy_data: container %q is null", name)
		}
	}
	return &p, doc, nil
}

func validJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var v map[string]json.RawMessage
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("parse policy_data: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("parse policy_data: text after the JSON value: %w", ErrForm)
	}
	return nil
}

// IsUpstream says whether policy_data is in the shape of upstream's genpolicy:
// its containers are a list.
func (d Document) IsUpstream() bool {
	var v struct {
		Containers json.RawMessage `json:"containers"`
	}
	err := json.Unmarshal(d.Data, &v)
	return err == nil && strings.HasPrefix(string(bytes.TrimSpace(v.Containers)), "[")
}
