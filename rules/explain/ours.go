package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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

// ours is a question before our rules: what they take the policy and the
// container to be, whatever shape the text has them in.
type ours struct {
	*session
	policy    *policydata.Policy
	container *policydata.Container
	name      string
	given     map[string][]Finding // what the rules themselves found, by check
	pstate    any
}

// explainOurs names what failed from the rules' own checks and findings, and
// looks up the place and the values where those are coarse.
func (s *session) explainOurs(x *Explanation) error {
	o := &ours{session: s, pstate: s.state}
	if err := o.load(); err != nil {
		return err
	}
	x.Container = o.name
	if o.container == nil && (s.kind == createKind || s.kind == execKind) {
		o.unknown(x)
		return nil
	}
	for _, check := range x.Checks {
		if check.Result != Passed {
			x.Findings = append(x.Findings, o.details(check.Name)...)
		}
	}
	// The pull's options repeat all annotations: what is wrong with one shows there too.
	slices.SortStableFunc(x.Findings, func(a, b Finding) int { return derived(a) - derived(b) })
	if len(x.Findings) == 0 {
		if err := o.fallback(x); err != nil {
			return err
		}
	}
	if len(x.Findings) > 0 && x.Change == "" {
		x.Change = advice(o, x.Findings[0])
	}
	return nil
}

func derived(f Finding) int {
	if f.Path == pullOptions {
		return 1
	}
	return 0
}

// load asks the rules for the policy, the container and their findings.
func (o *ours) load() error {
	var err error
	if o.policy, err = o.data(); err != nil {
		return fmt.Errorf("read policy_data: %w", err)
	}
	rule := map[string]string{createKind: "container", execKind: "exec_container"}[o.kind]
	if rule != "" {
		container, err := o.eval(rule)
		if err != nil {
			return err
		}
		if err := convert(container, &o.container); err != nil {
			return fmt.Errorf("read container: %w", err)
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
		o.name = text(at(o.pstate, "container:"+text(at(o.input, "container_id"))))
	}
	return o.loadFindings()
}

func (o *ours) loadFindings() error {
	found, err := o.eval("findings", o.kind)
	if err != nil {
		return err
	}
	o.given = map[string][]Finding{}
	for _, f := range list(found) {
		check := text(at(f, "check"))
		path, wanted, got := narrow(text(at(f, "path")), at(f, "wanted"), at(f, "got"))
		f := Finding{Check: check, Path: path, Wanted: wanted, Got: got}
		if o.kind == copyKind {
			f = copyFinding(f)
		}
		o.given[check] = append(o.given[check], f)
	}
	return nil
}

// copyFinding words a finding about a file: of lists any item will do, and modes are octal.
func copyFinding(f Finding) Finding {
	if wanted, ok := f.Wanted.([]any); ok {
		f.Wanted = oneOf(texts(wanted))
	}
	if mode, err := strconv.Atoi(fmt.Sprint(f.Got)); f.Check == "mode" && err == nil {
		f.Got = Phrase(fmt.Sprintf("%#o", mode))
	}
	return f
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

// unknown explains a request for a container that the policy does not have.
func (o *ours) unknown(x *Explanation) {
	f := Finding{Check: "container", Path: "container_id", Wanted: Phrase("a container that exists"), Got: at(o.input, "container_id")}
	x.Change = noContainer
	if o.kind == createKind {
		names := containerNames(o.policy)
		x.Container = nearest(o.policy, o.input)
		f = Finding{Check: "name", Path: annotationPath(nameKey), Wanted: oneOf(names), Got: at(o.input, "OCI", "Annotations", nameKey)}
		x.Change = "the policy has no such container: something added it after the policy was made (a webhook, a sidecar injector); " +
			"make the policy from the manifest as the cluster has it"
		if len(names) == 0 {
			x.Change = "the policy has no container at all: the pod runs under a default policy; make one with genpolicy and annotate the pod with it"
		}
	}
	x.Findings = []Finding{f}
}

// related are the names that the rules' findings have for a check.
var related = map[string][]string{
	"process": {"process", "version", "apparmor"},
	"image":   {"image name", "image pull"},
	"command": {"args"},
}

// details finds the places of one failed check.
func (o *ours) details(check string) []Finding {
	if probe := probes[o.kind+" "+check]; probe != nil {
		if found := probe(o); len(found) > 0 {
			for i := range found {
				found[i].Check = check
			}
			return found
		}
	}
	names := related[check]
	if names == nil {
		names = []string{check}
	}
	var out []Finding
	for _, name := range names {
		for _, f := range o.given[name] {
			if !same(f.Wanted, f.Got) {
				out = append(out, f)
			}
		}
	}
	return out
}

// fallback takes whatever the rules have said, when no check has a place.
func (o *ours) fallback(x *Explanation) error {
	if probe := networkProbes[o.kind]; probe != nil {
		x.Findings = probe(o)
		for i := range x.Findings {
			x.Findings[i].Check = "network"
		}
		if len(x.Findings) > 0 {
			return nil
		}
	}
	for _, check := range x.Checks {
		x.Findings = append(x.Findings, o.given[check.Name]...)
	}
	for _, name := range []string{"path", "type", "content", "mode", "link"} {
		x.Findings = append(x.Findings, o.given[name]...)
	}
	if len(x.Findings) > 0 {
		return nil
	}
	reasons, err := o.eval("reasons", o.kind)
	if err != nil {
		return err
	}
	if said := texts(reasons); len(said) > 0 {
		x.Findings = []Finding{{Check: "reason", Wanted: Phrase(strings.Join(said, "; "))}}
		return nil
	}
	for _, entry := range rules.Entries() {
		if entry.Request == o.kind && entry.Default == rules.Denied {
			x.Findings = []Finding{{Check: "request", Wanted: Phrase("denied whatever it holds")}}
			x.Change = "allowed " + lowerFirst(strings.TrimSuffix(strings.ReplaceAll(entry.Checks, "`", ""), ".")) + ", in the settings"
			if o.kind == "SetPolicyRequest" {
				x.Change = "a policy is set once, before anything runs: deploy the pod anew with the new policy"
			}
		}
	}
	return nil
}

func lowerFirst(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }

func containerNames(p *policydata.Policy) []string {
	names := []string{}
	for name := range p.Containers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// annotationPath writes the place of an annotation as findings do.
func annotationPath(key string) string { return "OCI.Annotations[" + key + "]" }

// nearest is the container of the policy that the request has most in common
// with, by what it runs, its image, variables and mounts; "" if nothing.
func nearest(p *policydata.Policy, input any) string {
	best, most := "", 0
	process := at(input, "OCI", "Process")
	env := texts(at(process, "Env"))
	for _, name := range containerNames(p) {
		c := p.Containers[name]
		score := 4 * overlap(c.Args, texts(at(process, "Args")))
		score += overlap(c.Env.Fixed, env)
		if c.Image.Annotation != "" && c.Image.Annotation == text(at(input, "OCI", "Annotations", "io.kubernetes.cri.image-name")) {
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
