package gate

import (
	"context"

	"portcullis/engine"
)

// PanicOn makes every judgement of a method panic, as a defect in the gate would.
func (g *Gate) PanicOn(method string) {
	g.policies = panicking{g.policies, method + "Request"}
}

type panicking struct {
	Policies
	entryPoint string
}

func (p panicking) Judge(ctx context.Context, r engine.Request) (*engine.Verdict, error) {
	if r.EntryPoint == p.entryPoint {
		panic("planted")
	}
	return p.Policies.Judge(ctx, r)
}
