// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"portcullis/engine"
	"portcullis/hostdata/initdata"
	"portcullis/rules"
	"portcullis/rules/prove"
	"portcullis/rules/review"
	"portcullis/rules/settings"
)

// Fault is why a pod is refused.
type Fault string

// Values of Fault.
const (
	Missing    Fault = "missing"    // there is no annotation
	Unreadable Fault = "unreadable" // it holds no policy that a guest takes
	Foreign    Fault = "foreign"    // its rules are not held here, so that nothing can be said of it
	Looser     Fault = "looser"     // it asks less than the floor
	Stale      Fault = "stale"      // it is of another pod, or of this one as it was
)

// Refusal is one thing that is wrong with a pod's policy.
type Refusal struct {
	Fault Fault
	Text  string // one line
}

func (r Refusal) String() string { return string(r.Fault) + ": " + r.Text }

// Judge judges pods. It may be used by several goroutines at a time.
type Judge struct {
	floor    *Floor
	settings *settings.Settings
	compiler *engine.Compiler

	proven []prove.Property // that every policy must have

	mu   sync.Mutex
	read map[[sha256.Size]byte]*subject // the policies read last: the pods of a Deployment have one

	proving sync.Mutex // one proof at a time
	prover  *prove.Prover
}

// subject is a policy that was read.
type subject struct {
	*review.Subject
	lacks []string // properties that the floor requires, and it is not proven to have
}

// New makes a Judge of a floor. Over are the settings, beyond those of the floor's platform, that the policies are made with.
func New(floor *Floor, over ...settings.DropIn) (*Judge, error) {
	if len(floor.RuntimeClasses) == 0 {
		return nil, fmt.Errorf("%w: runtime_classes names no runtime class; such as runtime_classes = [\"kata-qemu-snp\"]", ErrFloor)
	}
	proven, err := floor.Properties()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFloor, err)
	}
	prover, err := prove.New()
	if err != nil {
		return nil, err
	}
	s, err := settings.Load(floor.Platform, over...)
	if err != nil {
		return nil, err
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	return &Judge{floor: floor, settings: s, compiler: compiler, proven: proven, read: map[[sha256.Size]byte]*subject{}, prover: prover}, err
}

// Covers says whether pods of a runtime class are judged.
func (j *Judge) Covers(runtimeClass string) bool { return j.floor.Covers(runtimeClass) }

// Pod lists what is wrong with the policy of a pod, in the order in which it is to be put right: of what is missing, unreadable
// or foreign nothing else is said. Whether the pod is one that is judged is for Covers to say. An error says that the judge does
// not know.
//
// The pod may be one that the API server has or a template: what the cluster gives to a pod, its name or a token, is taken as the
// policy has it.
func (j *Judge) Pod(ctx context.Context, pod *corev1.Pod) ([]Refusal, error) {
	key, text, err := PolicyOf(pod.Annotations)
	if key == "" {
		return []Refusal{{Missing, fmt.Sprintf("the pod has no annotation %s with a policy; genpolicy adds it", j.annotation())}}, nil
	}
	unreadable := func(err error) []Refusal {
		return []Refusal{{Unreadable, fmt.Sprintf("annotation %s: %s", key, engine.OneLine(err.Error(), maxText))}}
	}
	if err != nil {
		return unreadable(err), nil
	}
	has, err := j.subject(ctx, text)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("judge the pod's policy: %w", ctx.Err())
	}
	if err != nil {
		return unreadable(err), nil
	}
	if held := has.Rules == review.Held && has.Data != nil; !held && !j.floor.OtherRules {
		return []Refusal{{Foreign, fmt.Sprintf("annotation %s has rules that are not this release's (%s); make it with this release's genpolicy, "+
			"or let other rules in by other_rules", key, has.Rules)}}, nil
	} else if !held {
		return refusals(Looser, append(j.floor.looser(has.Subject), has.lacks...)), nil
	}
	stale, err := j.stale(ctx, pod, has.Data)
	if err != nil {
		return nil, err
	}
	return append(refusals(Stale, stale), refusals(Looser, append(j.floor.looser(has.Subject), has.lacks...))...), nil
}

// maxRead bounds how many policies are kept; each has up to a few hundred kilobytes.
const maxRead = 32

// subject reads a policy. It has to compile as it would in the guest.
func (j *Judge) subject(ctx context.Context, text []byte) (*subject, error) {
	digest := sha256.Sum256(text)
	j.mu.Lock()
	s := j.read[digest]
	j.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if _, err := j.compiler.Compile(ctx, text); err != nil {
		return nil, err
	}
	read, err := review.Load(ctx, "the annotation", text)
	if err != nil {
		return nil, err
	}
	s = &subject{Subject: read}
	if s.lacks, err = j.lacks(ctx, text); err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.read) >= maxRead {
		clear(j.read)
	}
	j.read[digest] = s
	return s, nil
}

// maxText bounds what is said of one thing, in bytes: the annotation is anybody's.
const maxText = 400

func refusals(fault Fault, texts []string) []Refusal {
	var out []Refusal
	for _, text := range texts {
		out = append(out, Refusal{fault, engine.OneLine(text, maxText)})
	}
	return out
}

// annotation is the one that genpolicy writes for the floor's platform.
func (j *Judge) annotation() string {
	if j.settings.Annotation == settings.Policy {
		return initdata.PolicyAnnotation
	}
	return initdata.Annotation
}

// PolicyOf reads the policy that a guest would get of a pod with these annotations. The key is "" where there is none.
func PolicyOf(annotations map[string]string) (key string, text []byte, err error) {
	for _, key := range []string{initdata.Annotation, initdata.OlderAnnotation, initdata.PolicyAnnotation} {
		value := strings.TrimSpace(annotations[key])
		if value == "" {
			continue
		}
		var doc *initdata.Document
		switch key {
		case initdata.PolicyAnnotation:
			text, err := initdata.ParsePolicy(value)
			return key, text, err
		case initdata.OlderAnnotation:
			doc, _, err = initdata.ParseOlder(value)
		default:
			doc, err = initdata.ParseAnnotation(value)
		}
		if err != nil {
			return key, nil, err
		}
		policy, ok := doc.Value(initdata.PolicyKey)
		if !ok && annotations[initdata.PolicyAnnotation] != "" {
			continue // initdata of other things beside a policy
		}
		if !ok {
			return key, nil, fmt.Errorf("the initdata has no %s", initdata.PolicyKey)
		}
		return key, []byte(policy), nil
	}
	return "", nil, nil
}
