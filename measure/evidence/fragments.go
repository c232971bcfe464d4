// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"portcullis/engine/fragment"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// Fragments are what may have updated the policy since it was measured.
type Fragments struct {
	Policy    []byte   // text of the measured policy, whose issuers and ceiling a fragment is held against; nil: it is not known
	Envelopes [][]byte // fragments that the verifier has
	Digests   []string // of documents that the verifier vouches for without having them, hexadecimal
}

// open takes the envelopes apart, by the digests of their documents.
func (f Fragments) open() (map[string]*fragment.Signed, error) {
	out := map[string]*fragment.Signed{}
	for i, envelope := range f.Envelopes {
		s, err := fragment.Open(envelope)
		if err != nil {
			return nil, fmt.Errorf("fragment %d: %w", i+1, err)
		}
		out[s.Digest()] = s
	}
	return out, nil
}

// chainEvent is what a register or record says of policies, in their order.
type chainEvent struct {
	fragment *record.Fact // nil: another policy or initdata came into force
}

// registerEvents are those of a policy's register.
func registerEvents(records []eventlog.Record) ([]chainEvent, error) {
	var out []chainEvent
	for _, r := range records {
		if r.Content.EventType != eventlog.Fragment {
			out = append(out, chainEvent{})
			continue
		}
		f, err := record.Parse(r.Content.Event)
		if err == nil && f.Kind != record.Fragment {
			err = fmt.Errorf("it states %s", f.Kind)
		}
		if err != nil {
			return nil, fmt.Errorf("event %d is of a fragment: %w", r.Content.Seq, err)
		}
		out = append(out, chainEvent{&f})
	}
	return out, nil
}

// recordEvents are those of the record of a pod's life.
func recordEvents(facts []record.Fact) []chainEvent {
	var out []chainEvent
	for i := range facts {
		switch facts[i].Kind {
		case record.Policy:
			out = append(out, chainEvent{})
		case record.Fragment:
			out = append(out, chainEvent{&facts[i]})
		}
	}
	return out
}

// unseen adds a check that says unknown where fragments may have updated the policy and nothing that was given would show them.
func (r *Result) unseen(policy []byte, s *SignedRecord) {
	issuers, err := fragment.Issuers(policy)
	if s != nil || err != nil || len(issuers) == 0 { // of issuers that it does not understand a guest takes none
		return
	}
	r.add(Check{Name: "fragments", Verdict: Unknown, Reason: FragmentUnseen,
		Detail: "the policy names issuers, and only the guest's record shows whether they have updated it; give --pod with --record and --log"})
}

// fragmentJudge holds fragments of a log against what may have updated the policy.
type fragmentJudge struct {
	f       Fragments
	now     time.Time
	known   map[string]*fragment.Signed
	issuers []fragment.Issuer
	svns    map[string]uint64
	unknown *Check // the first fragment that nobody vouches for
}

// fragments adds a check, if there were any: SVNs go up, an issuer of the policy has signed each within its ceiling, and the
// verifier vouches for each. Of those before the last policy only the latter is asked: the policy that they updated is not at
// hand.
func (r *Result) fragments(name string, events []chainEvent, f Fragments, o Options) {
	if !slices.ContainsFunc(events, func(e chainEvent) bool { return e.fragment != nil }) {
		return
	}
	j := fragmentJudge{f: f, now: o.now(), svns: map[string]uint64{}}
	err := j.prepare()
	last := len(events)
	for last > 0 && events[last-1].fragment != nil {
		last--
	}
	n := 0
	for i, e := range events {
		if e.fragment == nil || err != nil {
			continue
		}
		n++
		if err = j.judge(*e.fragment, i >= last); err != nil {
			err = fmt.Errorf("fragment %.16s of feed %s, svn %d: %w", e.fragment.Digest, e.fragment.Feed, e.fragment.SVN, err)
		}
	}
	switch {
	case err != nil:
		r.result(name, err)
	case j.unknown != nil:
		j.unknown.Name = name
		r.add(*j.unknown)
	default:
		r.add(Check{Name: name, Verdict: Pass, Detail: fmt.Sprintf("%d, each vouched for", n)})
	}
}

func (j *fragmentJudge) prepare() (err error) {
	if j.known, err = j.f.open(); err != nil || j.f.Policy == nil {
		return err
	}
	j.issuers, err = fragment.Issuers(j.f.Policy)
	return err
}

// judge takes the next fragment of a log. An error says that no genuine guest with this policy has accepted it.
func (j *fragmentJudge) judge(e record.Fact, current bool) error {
	line := e.Issuer + " " + e.Feed
	if e.SVN <= j.svns[line] {
		return fmt.Errorf("svn %d came before it", j.svns[line])
	}
	j.svns[line] = e.SVN
	signed := j.known[e.Digest]
	if current && j.f.Policy != nil {
		at := slices.IndexFunc(j.issuers, func(i fragment.Issuer) bool { return i.Line() == line })
		if at < 0 || e.SVN < j.issuers[at].MinimumSVN {
			return errors.New("the policy has no such issuer, or a higher minimum_svn")
		}
		if signed != nil {
			if err := j.vouches(signed, e); err != nil {
				return err
			}
		}
	}
	if slices.Contains(j.f.Digests, e.Digest) {
		return nil
	}
	if signed == nil {
		j.doubt(e, FragmentUnknown, "nobody vouches for it; if it is yours give --fragment or --fragment-digest")
	} else if from, to, dated := signed.Validity(); dated && (j.now.Before(from) || j.now.After(to)) {
		j.doubt(e, FragmentExpired, fmt.Sprintf("its certificates are valid from %s to %s; if you know that it was signed then give --fragment-digest",
			from.Format(time.DateOnly), to.Format(time.DateOnly)))
	}
	return nil
}

// vouches holds an envelope to what the log says of it, and to the ceiling.
func (j *fragmentJudge) vouches(s *fragment.Signed, e record.Fact) error {
	issuer, err := s.Issuer(j.issuers)
	if err != nil {
		return err
	}
	if issuer.ID() != e.Issuer || s.Document.Feed != e.Feed || s.Document.SVN != e.SVN {
		return errors.New("the log states another issuer, feed or svn")
	}
	_, err = fragment.Merge(j.f.Policy, []fragment.Accepted{{Document: s.Document, Issuer: issuer}})
	return err
}

func (j *fragmentJudge) doubt(e record.Fact, reason, detail string) {
	if j.unknown == nil {
		j.unknown = &Check{Verdict: Unknown, Reason: reason, Got: e.Digest, Detail: fmt.Sprintf("feed %s, svn %d: %s", e.Feed, e.SVN, detail)}
	}
}

// Policies are the texts that decided after each fragment of a log, by the fragment's digest, as far as all that were in force
// then are at hand: what a pod's containers may have been made by.
func (f Fragments) Policies(log []byte) (map[string][]byte, error) {
	records, err := eventlog.Decode(log)
	if err != nil {
		return nil, err
	}
	binding, pod := eventlog.Split(records)
	events, err := registerEvents(binding)
	if err != nil {
		return nil, err
	}
	facts, err := record.Read(pod)
	if err != nil {
		return nil, err
	}
	if len(facts) > 0 {
		events = recordEvents(facts)
	}
	return f.policies(events)
}

func (f Fragments) policies(events []chainEvent) (map[string][]byte, error) {
	known, err := f.open()
	if err != nil {
		return nil, err
	}
	issuers, err := fragment.Issuers(f.Policy)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	var accepted []fragment.Accepted
	missing := map[string]bool{} // lines whose latest fragment is not at hand
	for _, e := range events {
		if e.fragment == nil {
			accepted, missing = nil, map[string]bool{}
			continue
		}
		line := e.fragment.Issuer + " " + e.fragment.Feed
		s := known[e.fragment.Digest]
		if s == nil {
			missing[line] = true
			continue
		}
		delete(missing, line)
		issuer, err := s.Issuer(issuers)
		if err != nil {
			return nil, err
		}
		accepted = slices.DeleteFunc(accepted, func(a fragment.Accepted) bool { return a.Issuer.Line() == issuer.Line() })
		accepted = append(accepted, fragment.Accepted{Document: s.Document, Issuer: issuer})
		if len(missing) > 0 {
			continue
		}
		if out[e.fragment.Digest], err = fragment.Merge(f.Policy, accepted); err != nil {
			return nil, err
		}
	}
	return out, nil
}
