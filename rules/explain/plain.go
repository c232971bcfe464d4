// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/print"

	"portcullis/engine"
)

// explainPlain explains any policy: it is evaluated once more, and the attempt at the container that the request is nearest to is
// distinguished from the others. What failed there is the expression that got furthest; where in the request that is comes from
// comparing the request with the container's data.
func (s *session) explainPlain(x *Explanation) error {
	var err error
	if x.Checks, err = s.checks(); err != nil {
		return err
	}
	data, err := s.eval("policy_data")
	if err != nil {
		return err
	}
	var best candidate
	if s.kind == createKind {
		best = nearestCandidate(data, s.input)
		x.Container = best.name
	}
	events, prints, err := s.follow()
	if err != nil {
		return err
	}
	attempt, ok := pick(events, best.value)
	if !ok {
		return s.explainConstant(x, data != nil)
	}
	leaf := events.leaf(attempt)
	x.Line, x.Rule = leaf.expr.Location.Row, oneLine(string(leaf.expr.Location.Text))
	x.Values = s.values(leaf)
	x.Prints = tailOf(prints[attempt.printsBefore:attempt.prints])
	x.Findings = plainFindings(best, s, leaf, x.Prints)
	x.Change = s.plainAdvice(best, x.Findings)
	return nil
}

// explainConstant explains a request that the policy denies whatever it holds,
// as default policies do until the pod's own has come.
func (s *session) explainConstant(x *Explanation, hasData bool) error {
	for _, rule := range s.policy.Rules(s.kind) {
		if !alwaysFalse(rule) {
			continue
		}
		x.Line, x.Rule = rule.Loc().Row, oneLine(string(rule.Loc().Text))
		x.Findings = []Finding{{Check: "rule", Wanted: Phrase(x.Rule + ": denied whatever it holds")}}
	}
	s.kind = "SetPolicyRequest"
	waits, err := s.allowed()
	if len(x.Findings) > 0 && waits && !hasData {
		x.Change = "a default policy decides, as no policy of the pod's own has come: make one with genpolicy, and see that the pod carries its annotation"
	}
	return err
}

func tailOf(prints []string) []string { return slices.Clone(prints[max(0, len(prints)-maxPrints):]) }

// printHook keeps what is printed.
type printHook struct{ lines *[]string }

// Print implements print.Hook.
func (h printHook) Print(_ print.Context, message string) error {
	if len(*h.lines) < maxEvents {
		*h.lines = append(*h.lines, oneLine(message))
	}
	return nil
}

// follow evaluates the entry point with prints and a tracer.
func (s *session) follow() (*trail, []string, error) {
	var prints []string
	t := &trail{kind: s.kind, prints: &prints, parents: map[uint64]uint64{}, rules: map[uint64]string{}, entered: map[uint64]int{}, last: map[uint64]int{}}
	ref := ast.MustParseRef("data.agent_policy").Append(ast.StringTerm(s.kind))
	_, err := s.query(engine.Inquiry{Body: ast.NewBody(ast.NewExpr(ast.NewTerm(ref))), Tracer: t, Print: printHook{&prints}})
	return t, prints, err
}

// pick chooses the attempt at a container: the outermost rule that has it in a variable, else the rule that decides; of several
// failures the one that got furthest, in a rule that the policy's data makes use of.
func pick(t *trail, container any) (failure, bool) {
	var best failure
	var most [5]int
	found := false
	for _, f := range t.failures {
		mentioned := t.mentions(f, container)
		if !mentioned && f.rule != t.kind {
			continue
		}
		score := [5]int{0, -t.depth(f.query), 1, f.prints - f.printsBefore, f.index}
		if mentioned {
			score[0] = 1
		}
		if f.enumerates() {
			score[2] = 0 // the policy lists nothing there: that rule is not in use
		}
		if !found || slices.Compare(score[:], most[:]) >= 0 {
			best, most, found = f, score, true
		}
	}
	return best, found
}

// candidate is a container of a policy's data.
type candidate struct {
	name  string
	value any
}

// nearestCandidate finds the container in policy_data that has most in common
// with the request, in upstream's shape: a list whose items mirror the request.
func nearestCandidate(data, input any) candidate {
	var best candidate
	most := 0
	for i, c := range list(at(data, "containers")) {
		score := 0
		name := text(at(c, "OCI", "Annotations", nameKey))
		if name == text(at(input, "OCI", "Annotations", nameKey)) {
			score += 20
		}
		process := at(c, "OCI", "Process")
		score += 4 * overlap(texts(at(process, "Args")), texts(at(input, "OCI", "Process", "Args")))
		score += overlap(texts(at(process, "Env")), texts(at(input, "OCI", "Process", "Env")))
		for _, m := range list(at(c, "OCI", "Mounts")) {
			if slices.ContainsFunc(list(at(input, "OCI", "Mounts")), func(o any) bool { return at(o, "destination") == at(m, "destination") }) {
				score++
			}
		}
		if name == "" {
			name = fmt.Sprintf("containers[%d]", i)
			if text(at(c, "OCI", "Annotations", "io.kubernetes.cri.container-type")) == "sandbox" {
				name = "$sandbox"
			}
		}
		if score > most {
			best, most = candidate{name, c}, score
		}
	}
	return best
}

// plainAdvice says what to change by the field that differs, as for our rules.
func (s *session) plainAdvice(c candidate, found []Finding) string {
	switch s.kind {
	case createKind:
	case execKind:
		return "to allow it, make it an exec probe or hook of the container, or list it in the settings; a command gets the container's user, directory and variables"
	case copyKind:
		return "files may go below the volumes of the shared directory only; the settings list where"
	default:
		return "change what asks for it, or the settings that the policy is made with"
	}
	if c.name == "" {
		return "the policy's data names no container that this request is like: " + regenerate
	}
	where := "container " + c.name
	for _, a := range advices {
		if f := found[0]; f.Path != "" && a.kind == "" && a.path != "" && a.got == "" && strings.HasPrefix(f.Path, a.path) {
			return a.of(where, f)
		}
	}
	return "look at what the manifest, its image or the runtime changed there; undo that, or " + regenerate
}

func absent(f Finding) int {
	if f.Got == missing {
		return 1
	}
	return 0
}

// unrelated is a difference that neither the expression nor the prints speak of.
const unrelated = 3

// plainFindings are the differences of request and container, those that the failed expression or the last prints speak of first.
func plainFindings(c candidate, s *session, leaf failure, prints []string) []Finding {
	check := leaf.rule
	if leaf.rule == s.kind {
		check = oneLine(string(leaf.expr.Location.Text))
	}
	var found []Finding
	if c.value != nil {
		found = compare(c.value, s.input)
	}
	printed := announced(prints)
	speaks := func(f Finding) int {
		if leaf.holds(f.Wanted) || leaf.holds(f.Got) {
			return 0
		}
		level := unrelated
		for _, field := range fieldsOf(f.Path) {
			if leaf.isAbout(field) {
				return 1
			}
			if strings.Contains(printed, strings.ToLower(field)) {
				level = 2
			}
		}
		return level
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(speaks(a)-speaks(b), absent(a)-absent(b)) // what is missing may be allowed to be
	})
	if len(found) == 0 || speaks(found[0]) == unrelated {
		found = slices.Insert(found, 0, Finding{}) // the expression itself says more
	}
	for i := range found {
		found[i].Check = check
	}
	return found
}

// brackets are what a path holds of names that the request gives.
var brackets = regexp.MustCompile(`\[[^\]]*\]`)

// fieldsOf are the names of the field that a path leads to and, in a list or map, of that.
func fieldsOf(path string) []string {
	last := func(path string) string { return path[strings.LastIndex(path, ".")+1:] }
	fields := []string{last(brackets.ReplaceAllString(path, ""))}
	if whole, _, in := strings.Cut(path, "["); in {
		fields = append(fields, last(whole))
	}
	return fields
}

// announced is what the last print says it is about, before any value.
func announced(prints []string) string {
	if len(prints) == 0 {
		return ""
	}
	words, _, _ := strings.Cut(prints[len(prints)-1], "=")
	words, _, _ = strings.Cut(words, "{")
	return strings.ToLower(words)
}
