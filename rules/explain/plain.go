package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// explainPlain explains a policy of any make: it is evaluated once more, and the
// attempt at the container that the request is nearest to is told from the others.
// What failed there is the expression that got furthest; where in the request
// that is comes from comparing the request with the container's data.
func (s *session) explainPlain(x *Explanation) error {
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
		return nil // it is allowed, or there is nothing to follow
	}
	leaf := events.leaf(attempt)
	x.Rule = fmt.Sprintf("line %d: %s", leaf.expr.Location.Row, oneLine(string(leaf.expr.Location.Text)))
	x.Prints = tailOf(prints[attempt.printsBefore:attempt.prints])
	x.Findings = plainFindings(best, s, leaf, x.Prints)
	x.Change = "the expression is at line " + fmt.Sprint(leaf.expr.Location.Row) + " of the policy: change the manifest back, or " + anew
	if s.kind == createKind && best.name == "" {
		x.Change = "the policy's data names no container that this request is like: " + anew
	}
	return nil
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
	t := &trail{kind: s.kind, prints: &prints, parents: map[uint64]uint64{}, rules: map[uint64]string{}}
	ref := ast.MustParseRef("data.agent_policy").Append(ast.StringTerm(s.kind))
	_, err := s.query(ast.NewBody(ast.NewExpr(ast.NewTerm(ref))), rego.EvalQueryTracer(t), rego.EvalPrintHook(printHook{&prints}))
	return t, prints, err
}

// pick chooses the attempt at a container: the outermost rule that has it in a
// variable, else the rule that decides; of several failures the one that got
// furthest.
func pick(t *trail, container any) (failure, bool) {
	var best failure
	var most [4]int
	found := false
	for _, f := range t.failures {
		mentioned := t.mentions(f, container)
		if !mentioned && f.rule != t.kind {
			continue
		}
		score := [4]int{0, -t.depth(f.query), f.index, f.prints - f.printsBefore}
		if mentioned {
			score[0] = 1
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

// plainFindings are the differences of request and container, those that the
// failed expression or the last prints speak of first.
func plainFindings(c candidate, s *session, leaf failure, prints []string) []Finding {
	check := leaf.rule
	if leaf.rule == s.kind {
		check = oneLine(string(leaf.expr.Location.Text))
	}
	var found []Finding
	if c.value != nil {
		found = compare(c.value, s.input)
	}
	about := leaf.about() + "\n" + strings.ToLower(strings.Join(prints, "\n"))
	speaks := func(f Finding) int {
		field := strings.ToLower(fieldOf(f.Path))
		switch {
		case leaf.holds(f.Wanted) || leaf.holds(f.Got):
			return 0
		case strings.Contains(leaf.about(), field):
			return 1
		case strings.Contains(about, field):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return speaks(a) - speaks(b) })
	if len(found) == 0 {
		found = []Finding{{}}
		if path, got := leaf.inputOf(s.input); path != "" {
			found = []Finding{{Path: path, Got: got, Wanted: oneLine(string(leaf.expr.Location.Text))}}
		}
	}
	for i := range found {
		found[i].Check = check
	}
	return found
}

// fieldOf is the name of the field that a path is in, without what is in brackets.
func fieldOf(path string) string {
	if i := strings.Index(path, "["); i >= 0 {
		path = path[:i]
	}
	return path[strings.LastIndex(path, ".")+1:]
}
