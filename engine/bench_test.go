// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"portcullis/engine"
)

// benchmarkJudge measures one judgement of a pod of n containers, on one goroutine.
func benchmarkJudge(b *testing.B, n int, r engine.Request) {
	e := startText(b, podRules+podData(n))
	b.ReportAllocs()
	for b.Loop() {
		v, err := e.Judge(context.Background(), r)
		if err != nil || !v.Allowed {
			b.Fatal(v, err)
		}
		v.Discard()
	}
}

func BenchmarkExecProcess(b *testing.B) {
	benchmarkJudge(b, 1, request("ExecProcessRequest", execInput))
}

func BenchmarkStatsContainer(b *testing.B) {
	benchmarkJudge(b, 1, request("StatsContainerRequest", `{}`))
}

func BenchmarkExecProcessCached(b *testing.B) {
	r := request("ExecProcessRequest", execInput)
	r.Key = sha256.Sum256([]byte("request"))
	benchmarkJudge(b, 1, r)
}

func BenchmarkExecProcessParallel(b *testing.B) {
	e := startText(b, podRules+podData(1))
	r := request("ExecProcessRequest", execInput)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v, err := e.Judge(context.Background(), r); err != nil || !v.Allowed {
				b.Error(v, err)
				return
			}
		}
	})
}

// BenchmarkCreateContainer includes the hold, the patch of the state and the commit of a remove.
func BenchmarkCreateContainer(b *testing.B) {
	e := startText(b, podRules+podData(10))
	create := request("CreateContainerRequest", createInput("a", "c9"))
	b.ReportAllocs()
	for b.Loop() {
		v, err := e.Judge(context.Background(), create)
		if err != nil || !v.Holds() {
			b.Fatal(v, err)
		}
		v.Discard()
	}
}

func BenchmarkReaches(b *testing.B) {
	p := compile(b, podRules+podData(1))
	for b.Loop() {
		p.Reaches("CreateContainerRequest", "data")
	}
}

// BenchmarkCompile loads the same policy in its forms: as one module, with its data taken out, and with the rules held.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{1, 40} {
		data := podData(n)
		held := newCompiler(b, podRules)
		none := newCompiler(b)
		for _, form := range []struct {
			name     string
			compiler *engine.Compiler
			text     string
		}{
			{"module", none, podRules + data + "\n# data stays a rule\n"},
			{"full", none, podRules + data},
			{"full-held", held, podRules + data},
			{"compact", held, compactText(podRules, data)},
		} {
			b.Run(fmt.Sprintf("%s-%d", form.name, n), func(b *testing.B) {
				text := []byte(form.text)
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					if _, err := form.compiler.Compile(context.Background(), text); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
