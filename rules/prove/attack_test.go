// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/agentproto"
	"portcullis/internal/rulestest"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// attacker looks for a sequence of which loose allows what strict denies. Both see the same requests, and only what loose allowed
// has happened.
type attacker struct {
	ctx           context.Context
	rand          *rand.Rand
	strict, loose *rulestest.Judge
	lives         [][]rulestest.Request // of the loose policy's pod, and of the strict one's
	extras        []rulestest.Request
	words         []string // what one policy says and the other does not, and values that mean something
	asked         int
	allowed       int // of them, by both
}

func newAttacker(ctx context.Context, r *rand.Rand, rules *rulestest.Judge, a, b *policydata.Policy) (*attacker, error) {
	x := &attacker{ctx: ctx, rand: r, words: words(a, b)}
	for _, j := range []struct {
		policy *policydata.Policy
		judge  **rulestest.Judge
	}{{b, &x.loose}, {a, &x.strict}} {
		raw, err := j.policy.JSON()
		if err != nil {
			return nil, err
		}
		if *j.judge, err = rules.Under(raw); err != nil {
			return nil, err
		}
		x.lives = append(x.lives, life(j.policy))
		more, err := extras(j.policy, x.words)
		if err != nil {
			return nil, err
		}
		x.extras = append(x.extras, more...)
	}
	return x, nil
}

// run decides n requests, of which it says what one policy alone allows, "" if there is nothing.
func (x *attacker) run(n int) (broken string, err error) {
	for x.asked < n && broken == "" && err == nil {
		if err = x.reset(); err != nil {
			break
		}
		requests := x.lives[0]
		if x.rand.IntN(4) == 0 {
			requests = x.lives[1]
		}
		if x.rand.IntN(2) == 0 {
			broken, err = x.beside(requests, n)
		} else {
			broken, err = x.instead(requests, n)
		}
	}
	return broken, err
}

func (x *attacker) reset() error {
	for _, j := range []*rulestest.Judge{x.strict, x.loose} {
		if err := j.SetState(x.ctx, map[string]any{}); err != nil {
			return err
		}
	}
	return nil
}

// beside goes through a pod's life and asks, before some of its requests, for changed ones that are not carried out.
func (x *attacker) beside(requests []rulestest.Request, n int) (string, error) {
	for _, r := range requests {
		for range x.rand.IntN(6) {
			if x.asked >= n {
				return "", nil
			}
			if broken, err := x.change(r, 1+x.rand.IntN(2), false); broken != "" || err != nil {
				return broken, err
			}
		}
		if x.rand.IntN(8) == 0 {
			if broken, err := x.ask(pick(x.rand, x.extras), false, "one more request"); broken != "" || err != nil {
				return broken, err
			}
		}
		if broken, err := x.ask(r, true, "a request of the pod's life"); broken != "" || err != nil {
			return broken, err
		}
	}
	return "", nil
}

// instead changes the life itself: requests are changed, left out, doubled, exchanged and put in.
func (x *attacker) instead(requests []rulestest.Request, n int) (string, error) {
	requests = slices.Clone(requests)
	for range 1 + x.rand.IntN(4) {
		i := x.rand.IntN(len(requests))
		switch x.rand.IntN(4) {
		case 0:
			requests = slices.Delete(requests, i, i+1)
		case 1:
			requests = slices.Insert(requests, x.rand.IntN(len(requests)), requests[i])
		case 2:
			k := x.rand.IntN(len(requests))
			requests[i], requests[k] = requests[k], requests[i]
		case 3:
			requests = slices.Insert(requests, i, pick(x.rand, x.extras))
		}
	}
	for _, r := range requests {
		if x.asked >= n {
			return "", nil
		}
		var broken string
		var err error
		if x.rand.IntN(5) == 0 {
			broken, err = x.change(r, 1+x.rand.IntN(3), true)
		} else {
			broken, err = x.ask(r, true, "a request of a changed life")
		}
		if broken != "" || err != nil {
			return broken, err
		}
	}
	return "", nil
}

// change asks for a request with some of its values changed, and changes them back.
func (x *attacker) change(r rulestest.Request, times int, carry bool) (string, error) {
	if r.Kind == observed {
		return x.ask(r, carry, "an answer")
	}
	var undo []func()
	var told []string
	for range times {
		s := pickSpot(x.rand, spotsOf(r.Input))
		if s == nil {
			break
		}
		value := s.changed(x.rand, x.words)
		s.set(value)
		undo = append(undo, func() { s.set(s.old) })
		told = append(told, fmt.Sprintf("%s = %.80v", s.path, value))
	}
	broken, err := x.ask(r, carry, strings.Join(told, ", "))
	for _, back := range slices.Backward(undo) {
		back()
	}
	return broken, err
}

// observed is the answer that rules are shown, which comes to both policies alike.
const observed = "WaitProcessResponse"

// ask decides a request by both policies; about tells of it. One that loose denies has not happened. An evaluation that fails denies.
func (x *attacker) ask(r rulestest.Request, carry bool, about string) (string, error) {
	x.asked++
	value, err := ast.InterfaceToValue(r.Input)
	if err != nil {
		return "", err
	}
	yes, err := x.loose.Decide(x.ctx, r.Kind, value)
	if err != nil || !yes.Allowed && len(yes.Ops) == 0 {
		return "", x.ctx.Err()
	}
	no, err := x.strict.Decide(x.ctx, r.Kind, value)
	if err != nil || no.Allowed != yes.Allowed {
		text, _ := json.Marshal(r.Input)
		return fmt.Sprintf("%s, %s: one allows it, the other does not (%v): %.2000s", r.Kind, about, err, text), nil
	}
	x.allowed++
	if !carry {
		return "", nil
	}
	if err := x.loose.Apply(x.ctx, yes.Ops); err != nil {
		return "", err
	}
	return "", x.strict.Apply(x.ctx, no.Ops)
}

// life is the whole of a pod's life as a runtime would ask for it, as far as a policy says it.
func life(p *policydata.Policy) []rulestest.Request {
	var out []rulestest.Request
	for _, r := range (rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}).All() {
		out = append(out, inJSON(r))
		if id, _ := r.Input["container_id"].(string); r.Kind == "StartContainerRequest" && ends(p, id) {
			out = append(out, rulestest.Request{Kind: observed, Input: map[string]any{
				"request": map[string]any{"container_id": id, "exec_id": id}, "response": map[string]any{"status": 0},
			}})
		}
	}
	return out
}

// ends says whether another container waits for the end of the one with that id.
func ends(p *policydata.Policy, id string) bool {
	for _, c := range p.Containers {
		for _, step := range c.After {
			if step.State == policydata.Succeeded && rulestest.ID(step.Container) == id {
				return true
			}
		}
	}
	return false
}

// extras are requests beyond those of a life: every one of the agent's of every container, commands, and what the network is made of.
func extras(p *policydata.Policy, words []string) ([]rulestest.Request, error) {
	var out []rulestest.Request
	e := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
		for _, entry := range rules.Entries() {
			r, err := bare(entry.Request, rulestest.ID(name))
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		commands := slices.Concat(p.Requests.Exec.Commands, p.Containers[name].Exec, [][]string{{"sh"}, {}})
		for _, pattern := range p.Requests.Exec.Joined {
			commands = append(commands, []string{rulestest.Example(pattern)}, strings.Fields(rulestest.Example(pattern)))
		}
		for _, argv := range commands {
			out = append(out, inJSON(e.ExecProcess(name, argv)))
		}
	}
	for _, word := range append(words[:min(len(words), 40)], "eth0") {
		out = append(out, network(word)...)
	}
	return out, nil
}

// bare is a request with nothing in it but a container's id.
func bare(kind, id string) (rulestest.Request, error) {
	message, ok := agentproto.MessageByName(kind)
	if !ok {
		return rulestest.Request{}, fmt.Errorf("no message %s", kind)
	}
	text := "{}"
	if message.Descriptor().Fields().ByName("container_id") != nil {
		text = fmt.Sprintf(`{"container_id": %q}`, id)
	}
	m, err := agentproto.FromInput(message, json.RawMessage(text))
	if err != nil {
		return rulestest.Request{}, err
	}
	value, err := agentproto.Input(m)
	if err != nil {
		return rulestest.Request{}, err
	}
	plain, err := ast.JSON(value)
	if err != nil {
		return rulestest.Request{}, err
	}
	return inJSON(rulestest.Request{Kind: kind, Input: plain.(map[string]any)}), nil
}

// network are requests about the guest's network with a word in each place that a policy reads.
func network(word string) []rulestest.Request {
	address := func(a string) map[string]any { return map[string]any{"address": a, "mask": "24", "family": 0} }
	return []rulestest.Request{
		{Kind: "UpdateInterfaceRequest", Input: map[string]any{"interface": map[string]any{"name": word, "device": word, "hwAddr": "02:00:00:00:00:07", "raw_flags": 0,
			"mtu": 1500, "type_": "", "IPAddresses": []any{address("10.0.0.7")}, "devicePath": ""}}},
		{Kind: "UpdateRoutesRequest", Input: map[string]any{"routes": map[string]any{"Routes": []any{map[string]any{"device": "eth0", "source": word, "dest": word, "gateway": "",
			"scope": 0, "family": 0, "flags": 0, "mtu": 0}}}}},
		{Kind: "AddARPNeighborsRequest", Input: map[string]any{"neighbors": map[string]any{"ARPNeighbors": []any{map[string]any{"device": "eth0", "toIPAddress": address(word),
			"lladdr": "02:00:00:00:00:07", "state": 128, "flags": 0}}}}},
	}
}

// inJSON is a request in the types of JSON, which may be changed.
func inJSON(r rulestest.Request) rulestest.Request {
	raw, err := json.Marshal(r.Input)
	var input map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &input)
	}
	if err != nil {
		panic(err) // emulated requests are JSON
	}
	return rulestest.Request{Kind: r.Kind, Input: input}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
