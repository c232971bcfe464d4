// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"slices"
)

// MaxFacts bounds a record, [More] included: about eighty starts of containers. What a host makes happen beyond that is not recorded.
const MaxFacts = 256

// Pod is what the facts of a record amount to. The zero value is a pod of which nothing is known.
type Pod struct {
	Facts      int          // how many were applied
	Policies   []Fact       // those that came into force, in order
	Fragments  []Fact       // those that changed a policy, in order
	Sandbox    string       // id
	Containers []*Container // in the order of their creation
	Execs      []*Process   // in the order of their first start
	Complete   bool         // by the latest of complete and broken
	BrokenBy   *Fact        // the latest broken, after which the pod was not complete again
	Full       bool         // what came behind is not known

	ids     map[string]*Container
	repeats map[repeat]uint64 // how often each came, the first time included
	members map[string]bool   // names of those that ran when the pod was first complete
}

// Container is one container, from its creation on.
type Container struct {
	ID, Name      string
	Image, Digest string
	Started       int  // number of the fact, from 1; 0: not started
	Signalled     bool // by the host
	Ended         bool
	Code          int32 // exit code, when Ended
	Removed       bool
	Failed        bool // the agent refused to create or to start it
}

// Runs says whether its process was started, and nothing is known that ended it.
func (c *Container) Runs() bool { return c.Started > 0 && !c.Gone() }

// Gone says whether it was ended, or told to.
func (c *Container) Gone() bool { return c.Ended || c.Removed || c.Signalled || c.Failed }

// Process is an exec in a container.
type Process struct {
	Container *Container
	Digest    string // [ArgsDigest]
	Count     uint64 // at least
}

// repeat is what counts as the same thing again.
type repeat struct {
	id     string
	of     Kind
	digest string
	signal uint32
}

func (f Fact) repeat() repeat { return repeat{f.ID, f.Kind, f.Digest, f.Signal} }

// Apply takes the next fact of a record. An error says that it cannot come here: the record is not one that a guest wrote.
func (p *Pod) Apply(f Fact) error {
	if p.ids == nil {
		p.ids, p.repeats = map[string]*Container{}, map[repeat]uint64{}
	}
	p.Facts++
	if p.Full {
		return fmt.Errorf("%w: %s behind %s", ErrFact, f.Kind, More)
	}
	switch f.Kind {
	case Policy:
		p.Policies = append(p.Policies, f)
	case Fragment:
		if len(p.Policies) == 0 {
			return fmt.Errorf("%w: %s before any policy", ErrFact, f.Kind)
		}
		p.Fragments = append(p.Fragments, f)
	case Sandbox:
		p.Sandbox = f.ID
	case Created:
		if p.ids[f.ID] != nil {
			return fmt.Errorf("%w: container %.64q is created twice", ErrFact, f.ID)
		}
		c := &Container{ID: f.ID, Name: f.Name, Image: f.Image, Digest: f.Digest}
		p.ids[f.ID] = c
		p.Containers = append(p.Containers, c)
	case Complete:
		p.complete()
	case More:
		p.Full, p.Complete = true, false
	default:
		return p.applyTo(f)
	}
	return nil
}

// complete makes those that run now the members, the first time.
func (p *Pod) complete() {
	p.Complete, p.BrokenBy = true, nil
	if p.members != nil {
		return
	}
	p.members = map[string]bool{}
	for _, c := range p.Containers {
		if c.Runs() {
			p.members[c.Name] = true
		}
	}
}

// applyTo takes a fact of one container.
func (p *Pod) applyTo(f Fact) error {
	c := p.ids[f.ID]
	if c == nil {
		return fmt.Errorf("%w: %s of container %.64q, which was not created", ErrFact, f.Kind, f.ID)
	}
	switch f.Kind {
	case Started:
		c.Started = p.Facts
	case Signalled:
		c.Signalled = c.Signalled || f.Signal != 0
		p.repeats[f.repeat()]++
	case Ended:
		c.Ended = true
		if f.Code != nil {
			c.Code = *f.Code
		}
	case Removed:
		c.Removed = true
	case Exec:
		p.repeats[f.repeat()]++
		p.Execs = append(p.Execs, &Process{Container: c, Digest: f.Digest, Count: 1})
	case Repeated:
		p.again(f)
	case Failed:
		c.fail(f.Of)
	case Broken:
		p.Complete, p.BrokenBy = false, &f
	}
	return nil
}

func (p *Pod) again(f Fact) {
	for _, e := range p.Execs {
		if f.Of == Exec && e.Container.ID == f.ID && e.Digest == f.Digest {
			e.Count += f.Count
		}
	}
}

// fail takes back what the agent refused.
func (c *Container) fail(of Kind) {
	switch of {
	case Created:
		c.Failed = true
	case Started:
		c.Started, c.Failed = 0, true
	case Removed:
		c.Removed = false
	}
}

// Container returns the container with that id, nil if none was created.
func (p *Pod) Container(id string) *Container { return p.ids[id] }

// news says whether a fact is to be recorded: not one that the record has already, nor one of a container that it does not know.
func (p *Pod) news(f Fact) bool {
	c := p.ids[f.ID]
	switch f.Kind {
	case Policy:
		n := len(p.Policies)
		return n == 0 || p.Policies[n-1] != f
	case Fragment:
		return !slices.Contains(p.Fragments, f)
	case Sandbox:
		return p.Sandbox != f.ID
	case Created:
		return c == nil
	case Complete, More:
		return true
	}
	if c == nil {
		return false
	}
	switch f.Kind {
	case Started:
		return c.Started == 0
	case Ended:
		return !c.Ended
	case Removed:
		return !c.Removed
	case Failed:
		return !c.Failed && (f.Of != Removed || c.Removed)
	case Exec, Signalled:
		return p.repeats[f.repeat()] == 0
	}
	return true
}

// gone returns a member that a complete pod has lost.
func (p *Pod) gone() (*Container, bool) {
	if !p.Complete {
		return nil, false
	}
	for name := range p.members {
		if c := p.latest(name); c.Gone() || c.Started == 0 {
			return c, true
		}
	}
	return nil, false
}

// whole says whether nothing is missing of what was started: a container that has ended must have done so by itself, with exit
// code 0, and none of those that ran when the pod was first complete may have ended.
func (p *Pod) whole() bool {
	for name := range p.members {
		if !p.latest(name).Runs() {
			return false
		}
	}
	for _, c := range p.Containers {
		c = p.latest(c.Name)
		done := c.Started > 0 && c.Ended && c.Code == 0 && !c.Signalled
		if !c.Runs() && !done {
			return false
		}
	}
	return len(p.Containers) > 0
}

// latest returns the container of that name that was created last.
func (p *Pod) latest(name string) *Container {
	for i := len(p.Containers) - 1; i >= 0; i-- {
		if p.Containers[i].Name == name {
			return p.Containers[i]
		}
	}
	return nil
}
