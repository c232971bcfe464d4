// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"portcullis/hostdata/initdata"
	"portcullis/internal/squeeze"
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
	// ImagePolicy is put into the cdh.toml of initdata, for the guest to judge the images that it pulls; "" for none. See
	// CompactImagePolicy.
	ImagePolicy string
}

// ErrCompact says that guests hold only the built-in rules, which alone can be named by their digest.
var ErrCompact = errors.New("only the built-in rules have a compact form")

// foreign says whether the rules read upstream's policy_data.
func (o Output) foreign() bool {
	return o.Rules != "" && strings.TrimRight(o.Rules, "\n") != strings.TrimRight(rules.Text(), "\n")
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
	Older      string // value of [initdata.OlderAnnotation], which the pod has too and is kept in step; "" when it has not
}

// Write puts a policy into the manifest, as [Manifest.Annotate] does.
func (m *Manifest) Write(p *Pod, r *Rendered) error {
	if err := m.Annotate(p, r.Annotation, r.Value); err != nil || r.Older == "" {
		return err
	}
	return m.Annotate(p, initdata.OlderAnnotation, r.Older)
}

// Render writes the policy of a pod, as text and as the annotation that the settings name. The findings are warnings. The error is
// a [Finding] where upstream's shape cannot say what the policy says.
func (g *Generator) Render(p *Pod, policy *policydata.Policy, o Output) (*Rendered, []*Finding, error) {
	text, err := g.text(policy, o)
	if errors.Is(err, kata.ErrNotExpressible) {
		return nil, nil, &Finding{File: p.doc.file, Text: fmt.Sprintf("%s: %v", p.Name(), err)}
	}
	if err != nil {
		return nil, nil, err
	}
	made := &Rendered{Text: text, Annotation: initdata.PolicyAnnotation, Value: initdata.EncodePolicy(text)}
	if g.settings.Annotation != settings.Policy {
		if err := p.putInitdata(made, o); err != nil {
			return nil, nil, err
		}
	}
	warnings := p.otherAnnotations(made)
	tooLarge, err := p.checkSize(made)
	if tooLarge != nil {
		warnings = append(warnings, tooLarge)
	}
	return made, warnings, err
}

// otherAnnotations warns of annotations that may carry another policy, or a policy to other releases of Kata.
func (p *Pod) otherAnnotations(made *Rendered) []*Finding {
	say := func(about string) []*Finding {
		return []*Finding{p.fault("metadata.annotations", fmt.Sprintf("of %s %s", p.Name(), about))}
	}
	other := initdata.PolicyAnnotation
	if made.Annotation == other {
		other = initdata.Annotation
	}
	var all []*Finding
	if p.Annotation(other) != "" {
		all = say(fmt.Sprintf("also have %s, which may carry another policy; remove it", other))
	}
	switch {
	case made.Older != "":
		all = append(all, say(fmt.Sprintf("have %s, which Kata up to 3.18 reads, beside %s of later releases; both now carry the policy, remove the one that is not wanted",
			initdata.OlderAnnotation, initdata.Annotation))...)
	case p.Annotation(initdata.OlderAnnotation) != "":
		all = append(all, say(fmt.Sprintf("also have %s, which may carry another policy to Kata up to 3.18; remove it", initdata.OlderAnnotation))...)
	}
	return all
}

// Bounds on all annotations of an object together, in bytes.
const (
	maxAnnotations   = 256 << 10 // that Kubernetes takes
	largeAnnotations = maxAnnotations / 2
)

// checkSize refuses a policy with which Kubernetes takes no pod, and warns of one that kubectl apply, which keeps a copy of the
// manifest in another annotation, makes too large.
func (p *Pod) checkSize(made *Rendered) (warning *Finding, err error) {
	total := len(made.Annotation) + len(made.Value) + len(made.Older)
	for key, value := range p.owner.template.Annotations {
		if key != made.Annotation {
			total += len(key)
		}
		if key != made.Annotation && (key != initdata.OlderAnnotation || made.Older == "") {
			total += len(value)
		}
	}
	about := fmt.Sprintf("of %s come to %d bytes with the policy", p.Name(), total)
	switch {
	case total >= maxAnnotations:
		return nil, p.fault("metadata.annotations", fmt.Sprintf("%s, and Kubernetes takes %d at most; use --compact, or bring what is long in volumes", about, maxAnnotations-1))
	case total >= largeAnnotations:
		return p.fault("metadata.annotations", fmt.Sprintf("%s: kubectl apply keeps a second copy, and both pass Kubernetes' bound of %d; "+
			"use kubectl create, replace or apply --server-side", about, maxAnnotations)), nil
	}
	return nil, nil
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

// putInitdata puts a policy into the given initdata, or into what the pod has already, keeps the other keys, and encodes it for
// the annotation.
func (p *Pod) putInitdata(made *Rendered, o Output) error {
	base := o.Initdata
	made.Annotation = initdata.Annotation
	older, plain, err1 := p.initdataOf(initdata.OlderAnnotation)
	current, _, err2 := p.initdataOf(initdata.Annotation)
	if err := errors.Join(err1, err2); err != nil && base == nil {
		return err
	}
	for _, found := range []*initdata.Document{current, older} {
		if base == nil {
			base = found
		}
	}
	algorithm, data := initdata.SHA256, map[string]string{}
	if base != nil {
		algorithm = base.Algorithm()
		for _, key := range base.Keys() {
			data[key], _ = base.Value(key)
		}
	}
	data[initdata.PolicyKey] = string(made.Text)
	if o.ImagePolicy != "" {
		if data[initdata.CDHKey] == "" {
			return fmt.Errorf("%w: initdata has none; give --initdata-path with one that has the hub's other settings", ErrImagePolicy)
		}
		var err error
		if data[initdata.CDHKey], err = withImagePolicy(data[initdata.CDHKey], o.ImagePolicy); err != nil {
			return err
		}
	}
	doc, err := initdata.New(algorithm, data)
	if err != nil {
		return err
	}
	if made.Value, err = annotationValue(doc); err != nil || p.Annotation(initdata.OlderAnnotation) == "" {
		return err
	}
	made.Older = made.Value
	if plain {
		made.Older = base64.StdEncoding.EncodeToString(doc.Bytes())
	}
	return nil
}

// initdataOf reads an annotation with initdata, nil when the pod has none; plain says that it is not compressed.
func (p *Pod) initdataOf(key string) (doc *initdata.Document, plain bool, err error) {
	value := p.Annotation(key)
	switch {
	case value == "":
		return nil, false, nil
	case key == initdata.OlderAnnotation:
		doc, plain, err = initdata.ParseOlder(value)
	default:
		doc, err = initdata.ParseAnnotation(value)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: annotation %s: %w; remove it, or give --initdata-path", p.Name(), key, err)
	}
	return doc, plain, nil
}

// annotationValue encodes a document as [initdata.Document.Annotation] does, in fewer bytes than the guest's own code makes: all
// annotations of a pod together have 256 KiB. Reading it back proves that a guest will take it, and as what it was.
func annotationValue(doc *initdata.Document) (string, error) {
	value := base64.StdEncoding.EncodeToString(squeeze.Gzip(doc.Bytes()))
	read, err := initdata.ParseAnnotation(value)
	if err == nil && !bytes.Equal(read.Bytes(), doc.Bytes()) {
		err = errors.New("it reads back as another")
	}
	if err != nil {
		return "", fmt.Errorf("encode initdata annotation: %w", err)
	}
	return value, nil
}
