package generate

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"

	"portcullis/hostdata/initdata"
	"portcullis/rules"
	"portcullis/rules/generate/kata"
	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// Output says how a policy is written.
type Output struct {
	// Rules are put in front of policy_data; "" means the built-in ones. Others are given policy_data in upstream's shape.
	Rules string
	// Compact names the built-in rules by their digest instead.
	Compact bool
	// Initdata is what the policy is put into where initdata carries it; nil means what the pod has already, or nothing else.
	Initdata *initdata.Document
}

// ErrCompact says that guests hold only the built-in rules, which alone can be named by their digest.
var ErrCompact = errors.New("only the built-in rules have a compact form")

// foreign says whether the rules read upstream's policy_data.
func (o Output) foreign() bool {
	return o.Rules != "" && policydata.Digest(o.Rules) != policydata.Digest(rules.Text())
}

// Check refuses what cannot be written.
func (o Output) Check() error {
	if o.Compact && o.foreign() {
		return ErrCompact
	}
	return nil
}

// Rendered is a policy as it is handed to others.
type Rendered struct {
	Text       []byte // the policy itself
	Annotation string // of the pod, see package initdata
	Value      string // of that annotation
}

// Render writes the policy of a pod, as text and as the annotation that the settings name. The findings are warnings. The error is
// a [Finding] where upstream's shape cannot say what the policy says.
func (g *Generator) Render(p *Pod, policy *policydata.Policy, o Output) (*Rendered, []*Finding, error) {
	text, err := g.text(policy, o)
	if errors.Is(err, kata.ErrUnsaid) {
		return nil, nil, &Finding{File: p.doc.file, Text: fmt.Sprintf("%s: %v", p.Name(), err)}
	}
	if err != nil {
		return nil, nil, err
	}
	made := &Rendered{Text: text, Annotation: initdata.PolicyAnnotation, Value: initdata.EncodePolicy(text)}
	other := initdata.Annotation
	if g.settings.Annotation != settings.Policy {
		made.Annotation, other = initdata.Annotation, initdata.PolicyAnnotation
		if made.Value, err = initdataValue(p, text, o.Initdata); err != nil {
			return nil, nil, err
		}
	}
	if p.Annotation(other) == "" {
		return made, nil, nil
	}
	about := fmt.Sprintf("%s also has the annotation %s, which may carry another policy; remove it", p.Name(), other)
	return made, []*Finding{{File: p.doc.file, Text: about}}, nil
}

func (g *Generator) text(p *policydata.Policy, o Output) ([]byte, error) {
	text := o.Rules
	if text == "" {
		text = rules.Text()
	}
	switch err := o.Check(); {
	case err != nil:
		return nil, err
	case o.foreign():
		return kata.Text(text, p, g.settings)
	case o.Compact:
		return p.Compact(text)
	}
	return p.Full(text)
}

// initdataValue puts a policy into base, or into what the pod has already, keeps the other keys, and encodes it for the annotation.
func initdataValue(p *Pod, policy []byte, base *initdata.Document) (string, error) {
	if old := p.Annotation(initdata.Annotation); base == nil && old != "" {
		var err error
		if base, err = initdata.ParseAnnotation(old); err != nil {
			return "", fmt.Errorf("%s: annotation %s: %w; remove it, or give --initdata-path", p.Name(), initdata.Annotation, err)
		}
	}
	algorithm, data := initdata.SHA256, map[string]string{}
	if base != nil {
		algorithm = base.Algorithm()
		for _, key := range base.Keys() {
			data[key], _ = base.Value(key)
		}
	}
	data[initdata.PolicyKey] = string(policy)
	doc, err := initdata.New(algorithm, data)
	if err != nil {
		return "", err
	}
	return annotationValue(doc)
}

// annotationValue encodes a document as [initdata.Document.Annotation] does, in
// fewer bytes than the guest's own code makes: all annotations of a pod together
// have 256 KiB. Reading it back proves that a guest will take it.
func annotationValue(doc *initdata.Document) (string, error) {
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	zw.ModTime = time.Unix(0, 0) // which the header has as none
	if _, err := zw.Write(doc.Bytes()); err != nil {
		return "", err
	}
	if err := zw.Close(); err != nil {
		return "", err
	}
	value := base64.StdEncoding.EncodeToString(out.Bytes())
	if _, err := initdata.ParseAnnotation(value); err != nil {
		return "", fmt.Errorf("encode initdata annotation: %w", err)
	}
	return value, nil
}
