// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"portcullis/internal/strictjson"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// Pod is what the record of a pod's life is held against.
type Pod struct {
	Containers []PodContainer
	// Ordered: Containers are in the order in which the kubelet makes them. Else only what waits for what is known.
	Ordered bool
	// Complete makes a pod that is not complete a failure.
	Complete bool
	// Updated are the containers after each fragment of the record, by the digest of its document.
	Updated map[string][]PodContainer
}

// PodContainer is one container that the pod may have.
type PodContainer struct {
	Name   string
	Images []string // references that it may be named by; empty: any
	Digest string   // of the image, as a record states it; "" where nothing fixes it
	Execs  []Command
	// AnyExec: the policy allows commands that it does not list, so that none is known to be unasked for.
	AnyExec bool
	After   []After
}

// Command is what an exec may run, for people.
type Command struct {
	Digest string // record.ArgsDigest
	Text   string
}

// After is a container that must have come so far before another is created.
type After struct {
	Container string
	Succeeded bool // its process ended with exit code 0; else it was started
}

// PodResult is what the record says, whatever the checks say of it.
type PodResult struct {
	Complete   bool           `json:"complete"`
	Missing    []string       `json:"missing"` // containers that were never started, or are gone
	Full       bool           `json:"full"`    // more has happened than the record holds
	Head       string         `json:"head"`    // hexadecimal
	Events     int            `json:"events"`
	Policy     string         `json:"policy,omitempty"` // digest in force, hexadecimal
	Containers []ContainerRun `json:"containers"`       // in the order of their creation
	Execs      []ExecRun      `json:"execs"`
}

// ContainerRun is one container of the record.
type ContainerRun struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Image  string `json:"image,omitempty"`
	Digest string `json:"digest,omitempty"`
	State  string `json:"state"` // created, running, signalled, ended, removed or failed
	Code   *int32 `json:"code,omitempty"`
}

// ExecRun is one command that was executed in a container.
type ExecRun struct {
	Container string `json:"container"`
	Digest    string `json:"digest"`
	Command   string `json:"command,omitempty"` // if the policy names it
	Count     uint64 `json:"count"`             // at least
}

// claim is what a verifier says of the policies of a pod.
type claim struct {
	bound     Bound
	earlier   [][]byte
	fragments Fragments
	options   Options
}

// podRecord checks the records of the pod in a log, of which a register or a key vouches for the head, and holds them against
// what the pod was to be: "pod-record", "pod-policy", "pod-containers", "pod-order", "pod-exec" and "pod-complete".
func (r *Result) podRecord(records []eventlog.Record, c claim, want Pod) {
	pod, facts, err := apply(records)
	r.result("pod-record", err)
	if err != nil {
		return
	}
	j := podJudge{pod: pod, facts: facts, want: want}
	r.result("pod-policy", j.policies(c.bound, c.earlier))
	r.fragments("pod-fragments", recordEvents(facts), c.fragments, c.options)
	r.judged("pod-containers", j.containers())
	r.result("pod-order", j.order())
	r.judged("pod-exec", j.execs())
	missing := j.missing()
	r.Pod = j.result(records, missing)
	err = j.incomplete(missing)
	switch {
	case err == nil, want.Complete:
		r.result("pod-complete", err)
	default:
		r.skip("pod-complete", fmt.Sprintf("the pod is not complete: %v", err))
	}
}

// apply replays the facts.
func apply(records []eventlog.Record) (*record.Pod, []record.Fact, error) {
	if len(records) == 0 {
		return nil, nil, errors.New("the log has no event of the pod")
	}
	facts, err := record.Read(records)
	if err != nil {
		return nil, nil, err
	}
	pod := new(record.Pod)
	for i, f := range facts {
		if err := pod.Apply(f); err != nil {
			return nil, nil, fmt.Errorf("event %d: %w", records[i].Content.Seq, err)
		}
	}
	return pod, facts, nil
}

// podJudge holds a pod's record against what it was to be.
type podJudge struct {
	pod   *record.Pod
	facts []record.Fact
	want  Pod
}

// policies says which policy ruled the pod that may not have.
func (j *podJudge) policies(b Bound, earlier [][]byte) error {
	ruled := j.pod.Policies
	if len(ruled) == 0 {
		return errors.New("no policy came into force before the pod")
	}
	if j.facts[0].Kind != record.Policy {
		return fmt.Errorf("%s came before any policy", j.facts[0].Kind)
	}
	for i, f := range ruled {
		digest, err := hex.DecodeString(f.Digest)
		if err != nil {
			return err
		}
		known := func(k []byte) bool { return bytes.Equal(k, digest) }
		switch {
		case known(b.Digest):
		case i == len(ruled)-1:
			return fmt.Errorf("the policy in force is %s", f.Digest)
		case !slices.ContainsFunc(earlier, known):
			return fmt.Errorf("policy %s ruled before; if it was yours give --earlier or --earlier-digest", f.Digest)
		}
	}
	return nil
}

// order names a container that was created before its time.
func (j *podJudge) order() error {
	latest := -1
	seen := map[string]bool{}
	for _, c := range j.pod.Containers {
		at := slices.IndexFunc(j.want.Containers, func(w PodContainer) bool { return w.Name == c.Name })
		if c.Failed || at < 0 || seen[c.Name] { // a later start of the same one may come whenever it ended
			continue
		}
		seen[c.Name] = true
		for _, after := range j.want.Containers[at].After {
			if !j.cameSoFar(after, c) {
				return fmt.Errorf("container %s was created before %s had %s", c.Name, after.Container, map[bool]string{true: "succeeded", false: "started"}[after.Succeeded])
			}
		}
		if j.want.Ordered && at < latest {
			return fmt.Errorf("container %s was created after %s", c.Name, j.want.Containers[latest].Name)
		}
		latest = max(latest, at)
	}
	return nil
}

// cameSoFar says whether a container had come so far when another was created.
func (j *podJudge) cameSoFar(a After, then *record.Container) bool {
	for _, f := range j.facts {
		switch {
		case f.Kind == record.Created && f.ID == then.ID:
			return false
		case f.Name != a.Container:
		case a.Succeeded && f.Kind == record.Ended && f.Code != nil && *f.Code == 0, !a.Succeeded && f.Kind == record.Started:
			return true
		}
	}
	return false
}

// command finds what an exec ran, among what its container may run.
func (j *podJudge) command(e *record.Process) (text string, known bool, err error) {
	want, err := j.wantAt(func(f record.Fact) bool {
		return f.Kind == record.Exec && f.ID == e.Container.ID && f.Digest == e.Digest
	}, e.Container.Name)
	if err != nil || want == nil {
		return "", false, err
	}
	for _, c := range want.Execs {
		if c.Digest == e.Digest {
			return c.Text, true, nil
		}
	}
	return "", want.AnyExec, nil
}

// execs names a command that nobody asked for.
func (j *podJudge) execs() error {
	for _, e := range j.pod.Execs {
		_, known, err := j.command(e)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("in container %s something was executed that the policy does not name: arguments with digest %s, at least %d times",
				e.Container.Name, e.Digest, e.Count)
		}
	}
	return nil
}

// missing lists the containers that were never started or are gone, but for those that had to end before others.
func (j *podJudge) missing() []string {
	missing := []string{}
	for _, want := range j.want.Containers {
		started, runs, succeeded := false, false, false
		for _, c := range j.pod.Containers {
			if c.Name == want.Name {
				started = started || c.Started > 0
				runs = runs || c.Runs()
				succeeded = succeeded || c.Ended && c.Code == 0 && !c.Signalled
			}
		}
		if !started || !runs && !(succeeded && j.awaited(want.Name)) {
			missing = append(missing, want.Name)
		}
	}
	return missing
}

// awaited says whether another container waits for this one to succeed: it is to end.
func (j *podJudge) awaited(name string) bool {
	return slices.ContainsFunc(j.want.Containers, func(c PodContainer) bool {
		return slices.ContainsFunc(c.After, func(a After) bool { return a.Container == name && a.Succeeded })
	})
}

// incomplete says why the pod is not complete.
func (j *podJudge) incomplete(missing []string) error {
	switch {
	case j.pod.Full:
		return errors.New("more has happened than the record holds")
	case j.pod.BrokenBy != nil:
		f := j.pod.BrokenBy
		return fmt.Errorf("it is broken: container %s was lost (%s)", f.Name, f.Of)
	case len(missing) > 0:
		return fmt.Errorf("container %s was not started, or is gone", missing[0])
	case !j.pod.Complete:
		return errors.New("the guest does not say so")
	}
	return nil
}

func (j *podJudge) result(records []eventlog.Record, missing []string) *PodResult {
	out := &PodResult{Complete: j.incomplete(missing) == nil, Missing: missing, Full: j.pod.Full, Events: len(records),
		Head: records[len(records)-1].Content.Next.String(), Containers: []ContainerRun{}, Execs: []ExecRun{}}
	if n := len(j.pod.Policies); n > 0 {
		out.Policy = j.pod.Policies[n-1].Digest
	}
	for _, c := range j.pod.Containers {
		run := ContainerRun{Name: c.Name, ID: c.ID, Image: c.Image, Digest: c.Digest, State: stateOf(c)}
		if c.Ended {
			run.Code = &c.Code
		}
		out.Containers = append(out.Containers, run)
	}
	for _, e := range j.pod.Execs {
		text, _, _ := j.command(e)
		out.Execs = append(out.Execs, ExecRun{e.Container.Name, e.Digest, text, e.Count})
	}
	return out
}

func stateOf(c *record.Container) string {
	switch {
	case c.Failed:
		return "failed"
	case c.Removed:
		return "removed"
	case c.Ended:
		return "ended"
	case c.Signalled:
		return "signalled"
	case c.Started > 0:
		return "running"
	}
	return "created"
}

// SignedRecord is a record that no register holds: a key of the guest vouches for its head, and the report for the key.
type SignedRecord struct {
	Answer []byte // of the record's socket, JSON, to the verifier's nonce
	Log    []byte // the event log
	Pod    Pod
	// Fragments are what may have updated the policy.
	Fragments Fragments
}

// signedRecord checks that the report data answer the nonce and vouch for the record's key, "nonce", that the key has signed the
// log's head, "pod-log", and judges the record.
func (r *Result) signedRecord(reportData, nonce []byte, b Bound, s SignedRecord, o Options) {
	var a record.Answer
	if err := strictjson.Unmarshal(s.Answer, &a); err != nil {
		r.result("pod-log", fmt.Errorf("answer of the record's socket: %w", err))
		return
	}
	if len(nonce) == 0 {
		r.unknown("nonce", "no nonce was given, the evidence may be old")
	} else {
		r.compare("nonce", reportData, record.ReportData(a.Key, nonce))
	}
	if err := a.Verify(nonce); err != nil {
		r.result("pod-log", err)
		return
	}
	records, err := eventlog.Decode(s.Log)
	var head eventlog.Hex
	if err == nil {
		_, records = eventlog.Split(records)
		head, err = eventlog.Head(records)
	}
	if err == nil && (head.String() != a.Head || len(records) != a.Events) {
		err = fmt.Errorf("the log leads to %s in %d events, the guest's key has signed %s of %d", head, len(records), a.Head, a.Events)
	}
	r.result("pod-log", err)
	if err == nil {
		r.podRecord(records, claim{bound: b, fragments: s.Fragments, options: o}, s.Pod)
	}
}

// reportData checks what a report was made over: the nonce, or the nonce and the key of a record.
func (r *Result) reportData(data, nonce []byte, b Bound, s *SignedRecord, o Options) {
	if s == nil {
		r.nonce(data, nonce)
		return
	}
	r.signedRecord(data, nonce, b, *s, o)
}
