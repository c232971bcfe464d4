// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"portcullis/agentproto"
	"portcullis/rules/policydata"
)

// step is one change of a sequence. At and From choose requests, Item what is done with them; each is taken modulo what there is.
type step struct{ What, At, From, Item int }

// change makes a sequence into another one.
type change struct {
	name  string
	apply func(*pod, []event, step) []event
}

// changes are the kinds of change.
var changes = slices.Concat(orderChanges, fieldChanges, containerChanges, fileChanges, networkChanges)

// apply makes the changes one after the other.
func (p *pod) apply(scene int, steps []step) []event {
	out := slices.Clone(p.scenes[scene%len(p.scenes)])
	for _, s := range steps {
		out = changes[s.What%len(changes)].apply(p, out, s)
		if len(out) > longest {
			out = out[:longest]
		}
	}
	return out
}

// pick returns the place of an event that a function takes, or -1.
func pick(es []event, n int, takes func(event) bool) int {
	var found []int
	for i, e := range es {
		if takes(e) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return -1
	}
	return found[n%len(found)]
}

func ofKind(kinds ...string) func(event) bool {
	return func(e event) bool { return slices.Contains(kinds, e.kind) }
}

// edit changes a copy of a request, and drops what a pull repeats of it.
func (p *pod) edit(es []event, i int, change func(object)) []event {
	if i < 0 {
		return es
	}
	input := clone(es[i].input)
	change(input)
	for _, s := range list(input["storages"]) {
		if str(at(s, "driver")) == "image_guest_pull" {
			s.(object)["driver_options"] = []any{}
		}
	}
	out := slices.Clone(es)
	out[i] = event{p.requests.of(es[i].kind, input), es[i].outcome}
	return out
}

func (p *pod) of(kind string, input object) event { return event{request: p.requests.of(kind, input)} }

// asking is a request with those of the fields that its message has.
func (p *pod) asking(kind string, fields object) event {
	input, has := object{}, messageOf(kind).Fields()
	for name, value := range fields {
		if has.ByName(protoreflect.Name(name)) != nil {
			input[name] = value
		}
	}
	return p.of(kind, input)
}

// messageOf describes the message of a kind of request.
func messageOf(kind string) protoreflect.MessageDescriptor {
	message, ok := agentproto.MessageByName(kind)
	if !ok {
		panic(kind)
	}
	return message.Descriptor()
}

// idAt is the id of one of the containers of the sequence.
func idAt(es []event, n int) string {
	if i := pick(es, n, ofKind("CreateContainerRequest")); i >= 0 {
		return es[i].id()
	}
	return strings.Repeat("c", 64)
}

var orderChanges = []change{
	{"repeat", func(_ *pod, es []event, s step) []event {
		return slices.Insert(slices.Clone(es), s.From%(len(es)+1), es[s.At%len(es)])
	}},
	{"leave out", func(_ *pod, es []event, s step) []event {
		if len(es) < 6 {
			return es
		}
		i := s.At % len(es)
		return slices.Delete(slices.Clone(es), i, i+1)
	}},
	{"leave out a kind", leaveOutKind},
	{"move", func(_ *pod, es []event, s step) []event {
		i := s.At % len(es)
		e := es[i]
		es = slices.Delete(slices.Clone(es), i, i+1)
		return slices.Insert(es, s.From%(len(es)+1), e)
	}},
	{"swap", func(_ *pod, es []event, s step) []event {
		es = slices.Clone(es)
		i, j := s.At%len(es), s.From%len(es)
		es[i], es[j] = es[j], es[i]
		return es
	}},
	{"remove and take again", again(false)}, {"remove and take a new id", again(true)}, {"twin", twin},
	{"agent refuses", outcomeOf(refused)}, {"connection lost", outcomeOf(lost)},
	{"exit code", exitCode}, {"end early", endEarly}, {"signal", insertSignal}, {"signal before the answer", signalFirst},
	{"ask of a container", lifecycleOf}, {"what is closed", closed}, {"another pod's request", otherSandbox},
}

// leaveOutKind leaves out all requests of a kind for one container.
func leaveOutKind(_ *pod, es []event, s step) []event {
	e := es[s.At%len(es)]
	out := slices.DeleteFunc(slices.Clone(es), func(o event) bool { return o.kind == e.kind && o.owner() == e.owner() })
	if len(out) < 5 {
		return es
	}
	return out
}

// again removes a container and creates it again, and starts it.
func again(fresh bool) func(*pod, []event, step) []event {
	return func(p *pod, es []event, s step) []event {
		i := pick(es, s.At, ofKind("CreateContainerRequest"))
		if i < 0 {
			return es
		}
		more := []event{p.of("RemoveContainerRequest", object{"container_id": es[i].id(), "timeout": 0})}
		for _, e := range es {
			if e.kind != "CreateContainerRequest" && e.kind != "CopyFileRequest" && e.kind != "StartContainerRequest" || e.owner() != es[i].owner() {
				continue
			}
			if fresh {
				e = p.renamed(e, es[i].id(), freshID(s.Item))
			}
			more = append(more, e)
		}
		place := i + 1 + s.From%(len(es)-i)
		return slices.Insert(slices.Clone(es), place, more...)
	}
}

// freshID is an id that no genuine container has.
func freshID(n int) string { return strings.Repeat([]string{"5a", "6b", "7c", "8d"}[n%4], 32) }

func (p *pod) renamed(e event, from, to string) event {
	return event{p.requests.of(e.kind, renamed(e.input, from, to)), e.outcome}
}

// twin creates a container a second time, under another id.
func twin(p *pod, es []event, s step) []event {
	i := pick(es, s.At, ofKind("CreateContainerRequest"))
	if i < 0 {
		return es
	}
	e := p.renamed(es[i], es[i].id(), freshID(s.Item))
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), e)
}

func outcomeOf(o outcome) func(*pod, []event, step) []event {
	return func(_ *pod, es []event, s step) []event {
		i := pick(es, s.At, ofKind("CreateContainerRequest", "StartContainerRequest", "RemoveContainerRequest", "CopyFileRequest", "CreateSandboxRequest", "SignalProcessRequest"))
		if i < 0 {
			return es
		}
		es = slices.Clone(es)
		es[i].outcome = o
		return es
	}
}

// exitCode lets a process end otherwise.
func exitCode(p *pod, es []event, s step) []event {
	i := pick(es, s.At, ofKind(answered))
	if i < 0 {
		return es
	}
	es = slices.Clone(es)
	es[i].request = p.answer(es[i].owner(), []int{1, 137, 143, 0}[s.Item%4])
	return es
}

// endEarly lets a container's process end at another time.
func endEarly(p *pod, es []event, s step) []event {
	id := idAt(es, s.At)
	more := []event{p.of("WaitProcessRequest", object{"container_id": id, "exec_id": ""}), {request: p.answer(id, []int{0, 1}[s.Item%2])}}
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), more...)
}

var signals = []int{9, 15, 19, 18, 20, 1, 2, 3, 0, 34}

func (p *pod) signal(id string, s step) event {
	return p.of("SignalProcessRequest", object{"container_id": id, "exec_id": []string{"", id, "exec-1"}[s.Item%3], "signal": signals[s.Item%len(signals)]})
}

func insertSignal(p *pod, es []event, s step) []event {
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), p.signal(idAt(es, s.At), s))
}

// signalFirst ends a container between the question after its end and the answer.
func signalFirst(p *pod, es []event, s step) []event {
	i := pick(es, s.At, ofKind(answered))
	if i < 0 {
		return es
	}
	return slices.Insert(slices.Clone(es), i, p.signal(es[i].owner(), s))
}

// lifecycleOf asks something of a container, at any time.
func lifecycleOf(p *pod, es []event, s step) []event {
	kind := lifecycle[s.Item%len(lifecycle)]
	id := []string{idAt(es, s.At), strings.Repeat("c", 64), ""}[s.Item/len(lifecycle)%3]
	fields := object{"container_id": id, "exec_id": "", "signal": 15, "timeout": 0, "len": 1, "column": 1, "row": 1, "data": ""}
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), p.asking(kind, fields))
}

// closedKinds are what the rules deny as a whole.
var closedKinds = []string{
	"SetPolicyRequest", "PauseContainerRequest", "ResumeContainerRequest", "UpdateContainerRequest", "ReseedRandomDevRequest", "SetGuestDateTimeRequest",
	"GetMetricsRequest", "SetIPTablesRequest", "GetIPTablesRequest", "ListInterfacesRequest", "ListRoutesRequest", "AddSwapRequest", "AddSwapPathRequest",
	"MemHotplugByProbeRequest", "VolumeStatsRequest", "ResizeVolumeRequest", "MemAgentMemcgConfig", "MemAgentCompactConfig", "GetDiagnosticDataRequest",
}

func closed(p *pod, es []event, s step) []event {
	fields := object{"container_id": idAt(es, s.At), "policy": "package agent_policy"}
	return slices.Insert(slices.Clone(es), s.From%(len(es)+1), p.asking(closedKinds[s.Item%len(closedKinds)], fields))
}

// otherSandbox gives one container another pod.
func otherSandbox(p *pod, es []event, s step) []event {
	i := pick(es, s.At, ofKind("CreateContainerRequest"))
	if i < 0 {
		return es
	}
	key := "io.kubernetes.cri.sandbox-" + []string{"id", "name", "namespace", "uid"}[s.Item%4]
	value := str(at(es[i].input, "OCI", "Annotations", key))
	other := map[int]string{0: strings.Repeat("9", 64), 1: value + "x", 2: "kube-system", 3: []string{"", "---", "--privileged", "0f0f0f0f-0000-4000-8000-0f0f0f0f0f0f", "-f"}[s.From%5]}[s.Item%4]
	if s.Item%8 >= 4 { // everywhere
		out := slices.Clone(es)
		for n, e := range out {
			out[n] = p.renamed(e, value, other)
		}
		return out
	}
	return p.edit(es, i, func(in object) { put(in, other, "OCI", "Annotations", key) })
}

func put(in object, v any, path ...string) {
	if o, ok := at(in, path[:len(path)-1]...).(object); ok {
		o[path[len(path)-1]] = v
	}
}

// anyCreate is one of the genuine containers, in the sequence or not.
func (p *pod) anyCreate(n int) *request {
	var names []string
	for _, e := range p.life {
		if e.kind == "CreateContainerRequest" {
			names = append(names, nameOf(e.input))
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return p.requests.of("CreateContainerRequest", object{"name": policydata.SandboxContainer})
	}
	return p.facts.create[names[n%len(names)]]
}
