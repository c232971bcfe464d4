// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"portcullis/images"
)

// signals are Linux's on x86 and arm by number, from 1 on.
var signals = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU " +
	"URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")

// The first and last real-time signals, as the C library counts them.
const firstRealTime, lastRealTime = 34, 64

// sigterm is what ends a container of which nobody says otherwise.
const sigterm = 15

// stopSignal is the number of the signal that ends the container: the manifest's, or else the image's. Runtimes send SIGTERM in place
// of one that they do not know. One that stops processes without ending them is not let through.
func stopSignal(c placed, config images.Config) uint32 {
	name := config.StopSignal
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		name = string(*c.Lifecycle.StopSignal)
	}
	n, err := signalNumber(name)
	if err != nil || n >= 18 && n <= 22 {
		return sigterm
	}
	return n
}

// signalNumber reads "SIGQUIT", "quit", "3" or "SIGRTMIN+3".
func signalNumber(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 8); err == nil && n > 0 && n <= lastRealTime {
		return uint32(n), nil
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if i := slices.Index(signals, name); i >= 0 {
		return uint32(i + 1), nil
	}
	for prefix, base := range map[string]int{"RTMIN": firstRealTime, "RTMAX": lastRealTime} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if n := base + offset; n >= firstRealTime && n <= lastRealTime {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("signal %q: unknown", name)
}
