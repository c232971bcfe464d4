package rules_test

import (
	"context"
	"testing"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// The checks that people are shown are other rules than the one that decides, and
// must never say otherwise.
func TestChecksForPeopleDecideAsTheRule(t *testing.T) {
	ctx := context.Background()
	for name, p := range map[string]*policydata.Policy{"rich": richPod(t), "one": onePod(t), "kata": onePod(t, "compat-kata")} {
		j, asked := judgeCompact(t, p), 0
		same := func(r rulestest.Request, what string) {
			input := value(t, r)
			d, err := j.Decide(ctx, r.Kind, input)
			if err != nil {
				t.Fatal(err)
			}
			checks, err := j.Eval(ctx, "CreateContainerChecks", input)
			if err != nil {
				t.Fatal(err)
			}
			if (checks == true) != d.Allowed {
				t.Errorf("%s: %s: the checks say %v, the rule %v", name, what, checks, d.Allowed)
			}
			asked++
		}
		for _, r := range emulator(p).All() {
			if r.Kind == "CreateContainerRequest" {
				same(r, "itself")
				for m := range rulestest.Mutations(r) {
					same(m.Request, string(m.Change)+" of "+m.Where)
				}
			}
			if d, err := j.Ask(ctx, r); err != nil || !d.Allowed {
				t.Fatalf("%s is denied (%v): %s", r.Kind, err, why(t, j, r))
			}
		}
		if asked < 500 {
			t.Errorf("%s: only %d requests", name, asked)
		}
	}
}
