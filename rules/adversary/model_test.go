// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"maps"
	"slices"

	"portcullis/rules/policydata"
)

// model is what has happened in a pod, and what may not happen next: the guarantees of docs/requests.md and docs/strictness.md,
// in Go. It knows nothing of the rules. A guarantee of the gate's, that an id is taken once, is held by the gate's own code.
type model struct {
	*facts
	weak       bool                  // the owner's settings let containers be created any number of times, and asked of in any state
	sandbox    bool                  // it was made
	sandboxID  string                // what it was called, nothing where the host did not say
	identity   string                // what the first container said of the pod
	containers map[string]*container // by id, those that may exist
	succeeded  map[string]bool       // names of those whose process ended by itself with exit code 0
	waits      []wait                // that the agent has not answered
	files      files
	volumeAt   map[string]string // volume by the source of its block device
	deviceOf   map[string]string // the source by the volume
}

// container is one that may exist.
type container struct {
	name               string
	input              object
	sure               bool // it exists
	started, signalled bool
	ended              bool
	status             int
}

// wait is a WaitProcess that was not answered.
type wait struct {
	id string
	of *container
}

func (f *facts) begin() *model {
	s := f.policy.Strict
	return &model{
		facts: f, weak: weak(s.Instances) || weak(s.Lifecycle), containers: map[string]*container{}, succeeded: map[string]bool{},
		files: files{}, volumeAt: map[string]string{}, deviceOf: map[string]string{},
	}
}

// agent says what the agent does with a request, if nothing goes wrong with it; false for an answer that it has no reason to give.
func (m *model) agent(e event) (outcome, bool) {
	c := m.containers[e.id()]
	switch e.kind {
	case answered:
		return done, slices.ContainsFunc(m.waits, func(w wait) bool { return w.id == e.owner() && w.of.started })
	case "CreateContainerRequest":
		if c != nil {
			return refused, true
		}
	case "StartContainerRequest":
		if c == nil || c.started {
			return refused, true
		}
	case "RemoveContainerRequest", "SignalProcessRequest", "ExecProcessRequest", "WaitProcessRequest":
		if c == nil {
			return refused, true
		}
	case "CopyFileRequest":
		if !m.files.takes(e.input) {
			return refused, true
		}
	}
	return e.outcome, true
}

// happened takes in an event that the rules allowed, and how it went, and returns what it broke beside, or nothing.
func (m *model) happened(e event, o outcome) string {
	if o == refused {
		return ""
	}
	switch id := e.id(); e.kind {
	case "CreateSandboxRequest":
		m.sandbox, m.sandboxID = true, str(e.input["sandbox_id"])
	case "CreateContainerRequest":
		m.take(e.request, o == done)
	case "StartContainerRequest":
		if c := m.containers[id]; c != nil {
			c.started = c.started || o == done
		}
	case "SignalProcessRequest":
		if c := m.containers[id]; c != nil && own(e.input) {
			c.signalled = true
		}
	case "RemoveContainerRequest":
		if c := m.containers[id]; c != nil && o == lost {
			c.sure = false
		} else {
			delete(m.containers, id)
		}
	case "WaitProcessRequest":
		if c := m.containers[id]; c != nil && own(e.input) && o == done {
			m.waits = append(m.waits, wait{id, c})
		}
	case "CopyFileRequest":
		m.files.copy(e.input, o == done)
		return m.changed()
	case answered:
		m.answer(e)
	}
	return ""
}

// answer is the end of a container's process.
func (m *model) answer(e event) {
	i := slices.IndexFunc(m.waits, func(w wait) bool { return w.id == e.owner() && w.of.started })
	c := m.waits[i].of
	m.waits = slices.Delete(m.waits, i, i+1)
	if c.ended || m.containers[e.owner()] != c { // of one that was removed nobody knows how it ended
		return
	}
	c.ended, c.status = true, int(number(at(e.input, "response", "status")))
	if c.status == 0 {
		m.succeeded[c.name] = m.succeeded[c.name] || !c.signalled
	}
}

// own is true for the container's own process.
func own(input object) bool {
	id := str(input["exec_id"])
	return id == "" || id == str(input["container_id"])
}

// breaks is the guarantee that a request would break.
func (m *model) breaks(e event) string {
	switch e.kind {
	case answered:
		return ""
	case "CreateSandboxRequest":
		return m.breaksSandbox(e.request)
	case "CreateContainerRequest":
		return m.breaksCreate(e.request)
	case "ExecProcessRequest":
		return m.breaksExec(e.request)
	case "CopyFileRequest":
		return m.breaksFile(e.request)
	case "UpdateInterfaceRequest", "UpdateRoutesRequest", "AddARPNeighborsRequest":
		return work(e.request, "network", func() string { return breaksNetwork(e.kind, e.input) })
	case "UpdateEphemeralMountsRequest":
		return m.breaksEphemeral(e.input)
	}
	if broken := m.breaksTable(e); broken != "" {
		return broken
	}
	return m.breaksLifecycle(e)
}

// lifecycle are requests for a container that exists.
var lifecycle = []string{
	"StartContainerRequest", "RemoveContainerRequest", "SignalProcessRequest", "WaitProcessRequest", "StatsContainerRequest",
	"TtyWinResizeRequest", "WriteStreamRequest", "ReadStreamRequest", "CloseStdinRequest", "GetDiagnosticDataRequest",
}

// breaksLifecycle: it is for a container that exists, whose process can be meant.
func (m *model) breaksLifecycle(e event) string {
	if !slices.Contains(lifecycle, e.kind) || m.weak {
		return ""
	}
	c := m.containers[e.id()]
	if c == nil || !c.sure {
		return e.kind + " for a container that does not exist"
	}
	if e.kind == "SignalProcessRequest" {
		if n := number(e.input["signal"]); n >= 18 && n <= 22 {
			return "signal that stops a process without ending it"
		} else if !slices.Contains([]int64{9, 15, int64(m.policy.Containers[c.name].StopSignal)}, n) {
			return "signal that no kubelet sends"
		}
	}
	return ""
}

// breaksTable: what docs/requests.md denies is denied, but where the owner opens it.
func (m *model) breaksTable(e event) string {
	open := m.policy.Requests
	stdin := open.WriteStream
	if c := m.containers[e.id()]; c != nil && own(e.input) && m.policy.Containers[c.name] != nil {
		stdin = stdin || m.policy.Containers[c.name].Stdin
	} else {
		stdin = stdin || open.Exec.Stdin
	}
	if !m.closed[e.kind] || slices.Contains(open.Allow, e.kind) || e.kind == "WriteStreamRequest" && stdin || e.kind == "ReadStreamRequest" && open.ReadStream ||
		e.kind == "CloseStdinRequest" && (stdin || open.CloseStdin) || e.kind == "GetDiagnosticDataRequest" && open.GetDiagnosticData {
		return ""
	}
	return e.kind + ", which the owner did not open"
}

func (m *model) breaksSandbox(r *request) string {
	if m.sandbox && !m.weak {
		return "sandbox made twice"
	}
	name := nameIn(m.policy)
	about := m.about(object{"OCI": object{"Annotations": object{"io.kubernetes.cri.sandbox-name": ""}}}, object{})
	if host := m.policy.Sandbox.Hostname; host == policydata.PodHostname {
		about.Names["host name"] = name
	}
	genuine := m.facts.sandbox.input
	if weak(m.policy.Strict.ContainerID) && str(r.input["sandbox_id"]) == "" {
		// Where ids are free, requests that name no sandbox are taken too.
		genuine = maps.Clone(genuine)
		genuine["sandbox_id"] = ""
	}
	return m.deviates(r, genuine, about)
}

func nameIn(p *policydata.Policy) string { return p.Sandbox.Name }
