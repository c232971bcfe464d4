// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"

	"portcullis/engine"
	"portcullis/rules"
)

func TestTheGuestRehearsesItsFirstContainer(t *testing.T) {
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held(), LateReasons: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := rehearse(context.Background(), compiler); err != nil {
		t.Error(err)
	}
}
