// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
)

// A container may be created once: the second request for the same id is denied.
func Example() {
	ctx := context.Background()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy, err := compiler.Compile(ctx, []byte(`package agent_policy

import rego.v1

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": path, "value": true}]} if {
	not data.pstate[input.container_id]
	path := concat("/", ["/pstate", input.container_id])
}

reasons.CreateContainerRequest := "this container was created before"
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	e := engine.New(policy, engine.Options{})
	defer e.Close()
	request := engine.Request{
		EntryPoint: "CreateContainerRequest",
		Input: func(*engine.Policy) (ast.Value, error) {
			return ast.NewObject(ast.Item(ast.StringTerm("container_id"), ast.StringTerm("web"))), nil
		},
	}
	for range 2 {
		verdict, err := e.Judge(ctx, request)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%v %q\n", verdict.Allowed, verdict.Reason)
		if verdict.Holds() { // the agent is asked here, and succeeds
			if err := verdict.Commit(); err != nil {
				fmt.Println(err)
			}
		}
	}
	// Output:
	// true ""
	// false "this container was created before"
}
