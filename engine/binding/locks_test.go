// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"portcullis/engine"
	"portcullis/engine/binding"
)

// Everything that takes a lock of chain, engine and journal at once, for as long as a wrong order needs to stop it: see the order
// in docs/architecture.md. Whoever waits for two locks in different orders waits here for good.
func TestLocksAreTakenInOneOrder(t *testing.T) {
	p := newBench(t).start(binding.Config{Register: &register{}, Update: true}, closedDefault, false)
	p.set(good)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	create := func(n int) error {
		v, err := p.chain.Admit(ctx, ask("CreateContainerRequest", fmt.Sprintf(`{"id": "c%d"}`, n%8)))
		if err != nil {
			return err
		}
		if err := p.chain.TakeID(fmt.Sprint(rand.Int())); err != nil {
			return err
		}
		if err := v.Begin(); err != nil {
			return err
		}
		switch n % 3 {
		case 0:
			v.Discard()
		case 1:
			return v.Commit()
		default:
			defer v.Discard()
			return v.Begin()
		}
		return nil
	}
	policies := []string{good, good2}
	set := func(n int) error {
		time.Sleep(10 * time.Millisecond) // else requests wait for the policy that comes most of the time
		return p.chain.SetPolicy(ctx, []byte(policies[n%2]))
	}
	jobs := map[string]func(n int) error{
		"create": create, "create beside it": create,
		"run": func(int) error {
			v, err := p.chain.Admit(ctx, ask("ExecProcessRequest", `{}`))
			if err == nil {
				v.Discard()
			}
			return err
		},
		"observe": func(int) error {
			v, err := p.chain.Observe(ctx, engine.Request{EntryPoint: "WaitProcessResponse"})
			if err == nil {
				v.Discard()
			}
			return err
		},
		"set": set, "set beside it": set,
		"status":  func(int) error { p.chain.Status(ctx); return nil },
		"suspend": func(int) error { return errors.Join(p.chain.Suspend(), p.chain.Resume()) },
		"denial":  func(int) error { return p.chain.Denial() },
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	done := map[string]int{}
	for name, job := range jobs {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := job(n); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				mu.Lock()
				done[name]++
				mu.Unlock()
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("somebody waits for good")
	}
	for name := range jobs {
		if done[name] == 0 {
			t.Errorf("%s was done %d times", name, done[name])
		}
	}
}
