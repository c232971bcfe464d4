// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
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

// observed is the answer that rules are shown, which comes to both policies alike.
const observed = "WaitProcessResponse"

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
	for _, word := range append(slices.Clone(words[:min(len(words), 40)]), "eth0") {
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
