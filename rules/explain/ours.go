// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

const (
	createKind  = "CreateContainerRequest"
	execKind    = "ExecProcessRequest"
	sandboxKind = "CreateSandboxRequest"
	copyKind    = "CopyFileRequest"

	nameKey = "io.kubernetes.cri.container-name"
)

// ours is a question before our rules: what they take the policy and the container to be, whatever shape the text has them in.
type ours struct {
	*session
	policy    *policydata.Policy
	container any // nil if the policy has none for the request
	name      string
}

// explainOurs takes from the rules which checks failed and what of the request is not as the policy wants it.
func (s *session) explainOurs(x *Explanation) error {
	o := &ours{session: s}
	if err := o.load(); err != nil {
		return err
	}
	x.Container = o.name
	if err := o.read(x); err != nil {
		return err
	}
	if o.container == nil && (s.kind == createKind || s.kind == execKind) {
		o.unknown(x)
		return nil
	}
	if len(x.Findings) == 0 {
		o.denied(x)
	}
	if len(x.Findings) > 0 && x.Change == "" {
		x.Change = advice(o, x.Findings[0])
	}
	return nil
}

// load asks the rules for the policy and the container.
func (o *ours) load() error {
	var err error
	if o.policy, err = o.data(); err != nil {
		return fmt.Errorf("read policy_data: %w", err)
	}
	if rule := map[string]string{createKind: "container", execKind: rules.WithNames("exec_container")}[o.kind]; rule != "" {
		if o.container, err = o.eval(rule); err != nil {
			return err
		}
	}
	switch {
	case o.kind == createKind && o.container != nil:
		o.name = text(at(o.input, "OCI", "Annotations", nameKey))
		if o.name == "" {
			o.name = policydata.SandboxContainer
		}
	case o.kind == sandboxKind:
		o.name = policydata.SandboxContainer
	default:
		o.name = text(at(o.state, "container:"+text(at(o.input, "container_id"))))
	}
	return nil
}

// read asks the rules for the checks and their findings, in the order in which they stand there.
func (o *ours) read(x *Explanation) error {
	checks, err := o.eval("checks", o.kind)
	if err != nil {
		return err
	}
	for _, c := range list(checks) {
		check := Check{Name: text(at(c, "name")), Result: resultOf(at(c, "passed") == true)}
		x.Checks = append(x.Checks, check)
	}
	if len(x.Checks) == 0 {
		if x.Checks, err = o.checks(); err != nil {
			return err
		}
	}
	found, err := o.eval("findings", o.kind)
	if err != nil {
		return err
	}
	sorted := list(found)
	slices.SortStableFunc(sorted, func(a, b any) int { return cmp.Compare(number(at(a, "order")), number(at(b, "order"))) })
	for _, f := range sorted {
		for _, f := range findingsOf(f) {
			known := slices.ContainsFunc(x.Findings, func(other Finding) bool { return other.Check == f.Check && other.Path == f.Path })
			if !known { // alternatives that failed are about the same place
				x.Findings = append(x.Findings, f)
			}
		}
	}
	return nil
}

func number(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

// noSuchContainer is for a container that came into the pod after the policy was made.
const noSuchContainer = "the policy has no such container: something added it after the policy was made (a webhook, a sidecar injector); " +
	"make the policy from the manifest as the cluster has it"

// unknown explains a request for a container that the policy does not have.
func (o *ours) unknown(x *Explanation) {
	x.Change = noContainer
	if o.kind == createKind {
		x.Container = nearest(o.policy, o.input)
		x.Change = noSuchContainer
		if len(o.policy.Containers) == 0 {
			x.Change = "the policy has no container at all: the pod runs under a default policy; make one with genpolicy and annotate the pod with it"
		}
	}
}

// denied explains a request that no condition could allow.
func (o *ours) denied(x *Explanation) {
	for _, entry := range rules.Entries() {
		if entry.Request == o.kind && entry.Default == rules.Denied {
			x.Findings = []Finding{{Check: "request", Wanted: Phrase("denied whatever it holds")}}
			x.Change = "allowed " + lowerFirst(strings.TrimSuffix(strings.ReplaceAll(entry.Checks, "`", ""), ".")) + ", in the settings"
			if o.kind == "SetPolicyRequest" {
				x.Change = "a policy is set once, before anything runs: deploy the pod again with the new policy"
			}
		}
	}
}

// convert brings an evaluated value into a type of package policydata, by way of
// JSON. A value that is nil leaves the pointer nil.
func convert[T any](value any, into **T) error {
	if value == nil {
		return nil
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func lowerFirst(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }

// annotationPath writes the place of an annotation as findings do.
func annotationPath(key string) string { return "OCI.Annotations[" + key + "]" }

// nearest is the container of the policy that the request has most in common
// with, by what it runs, its image, variables and mounts; "" if nothing.
func nearest(p *policydata.Policy, input any) string {
	best, most := "", 0
	process := at(input, "OCI", "Process")
	env := texts(at(process, "Env"))
	for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
		c := p.Containers[name]
		score := 4 * overlap(c.Args, texts(at(process, "Args")))
		score += overlap(c.Env.Fixed, env)
		if c.OCI.Annotations.ImageName != "" && c.OCI.Annotations.ImageName == text(at(input, "OCI", "Annotations", "io.kubernetes.cri.image-name")) {
			score += 8
		}
		if c.Cwd == text(at(process, "Cwd")) {
			score++
		}
		for _, m := range list(at(input, "OCI", "Mounts")) {
			if _, has := c.Mounts[text(at(m, "destination"))]; has {
				score++
			}
		}
		if score > most {
			best, most = name, score
		}
	}
	return best
}

func overlap(a, b []string) int { return len(a) - len(without(a, b)) }
