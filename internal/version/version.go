// SPDX-License-Identifier: Apache-2.0

// Package version says which build of Portcullis a program is, and which rules it holds: what two people have to compare who
// see different decisions.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"portcullis/engine/policytext"
	"portcullis/rules"
)

// described is what git describe says of the source. The linker sets it: see LDFLAGS in the Makefile.
var described string

// Build names the source that the program was built from, as git describe does. Of one that was not built by the Makefile it is
// what the go command knows.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(described, "unknown")
	}
	return cmp.Or(described, info.Main.Version)
}

// Rules are the held rules by their digests, as a compact policy names them: those of this project, then upstream's.
func Rules() []string {
	var digests []string
	for _, held := range rules.Held() {
		digests = append(digests, policytext.DigestOf(held.Text).String())
	}
	return digests
}

// Text is what a program says to --version, without its name: the build, then a line for each of the held rules.
func Text() string {
	held := Rules()
	return fmt.Sprintf("%s\nrules %s\nupstream rules %s\n", Build(), held[0], held[1])
}
