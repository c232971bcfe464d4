// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"portcullis/images/registry"
)

// progress shows downloads on a terminal, one line that is written over, and nothing elsewhere.
func progress(w io.Writer) func(registry.Progress) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	var mu sync.Mutex
	var last time.Time
	return func(p registry.Progress) {
		mu.Lock()
		defer mu.Unlock()
		done := p.Total > 0 && p.Done >= p.Total
		if !done && time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		const mib = 1 << 20
		fmt.Fprintf(w, "\r\033[K%s %.19s %d", p.Reference, p.Digest, p.Done/mib)
		if p.Total > 0 {
			fmt.Fprintf(w, "/%d", p.Total/mib)
		}
		fmt.Fprint(w, " MiB")
		if done {
			fmt.Fprint(w, "\r\033[K")
		}
	}
}
