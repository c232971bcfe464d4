// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
)

// Rehearse decides requests by p, in order and from fresh state, apart from any engine, and fails where one is not allowed. The first
// evaluation in a process takes several times as long as the next, whatever it decides: code comes into memory, regular expressions
// are compiled. A caller that has time before its first request lets a like one pay for that.
func Rehearse(ctx context.Context, p *Policy, requests []Request) error {
	e := New(p, Options{Workers: 1, Cache: -1})
	defer e.Close()
	for _, r := range requests {
		v, err := e.Judge(ctx, r)
		if err == nil && !v.Allowed {
			err = fmt.Errorf("denied: %s", v.Reason)
		}
		if err == nil && v.Holds() {
			err = v.Commit()
		}
		if err != nil {
			return fmt.Errorf("rehearse %s: %w", r.EntryPoint, err)
		}
	}
	return nil
}
