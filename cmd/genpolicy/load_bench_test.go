// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"portcullis/engine"
	"portcullis/engine/policytext"
	"portcullis/rules"
)

// BenchmarkLoad compiles a policy as SetPolicy does, in both forms: the full one where the guest knows nothing of its rules, the
// compact one where it holds them, compiled since its start.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1, 40} {
		for _, form := range []struct {
			name string
			args []string
			held []policytext.Held
		}{
			{"full", nil, nil},
			{"compact", []string{"--compact"}, []policytext.Held{{Text: []byte(rules.Text()), Reasons: []byte(rules.Reasons())}}},
		} {
			b.Run(fmt.Sprintf("%s/containers=%d", form.name, n), func(b *testing.B) {
				text := policyOfMany(b, n, form.args...)
				c, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: form.held})
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Warm(); err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if _, err := c.Compile(context.Background(), text); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// policyOfMany is what genpolicy prints for a pod of n containers with ten variables each.
func policyOfMany(b *testing.B, n int, args ...string) []byte {
	b.Helper()
	dir := b.TempDir()
	writeLayout(b, dir)
	var pod strings.Builder
	pod.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: many}\nspec:\n  containers:\n")
	for i := range n {
		fmt.Fprintf(&pod, "  - name: c%d\n    image: ghcr.io/acme/app:v2\n    env:\n", i)
		for v := range 10 {
			fmt.Fprintf(&pod, "    - {name: VARIABLE_%d, value: value-%d-of-%d}\n", v, v, i)
		}
	}
	code, out, errs := call(b, pod.String(), append([]string{"-r", "--oci-layout", dir}, args...)...)
	if code != exitDone {
		b.Fatal(errs)
	}
	return []byte(out)
}
