// Package version says which build of Portcullis a program is, and which rules it holds: what two people have to compare who
// see different decisions.
package version

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"runtime/debug"

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
	return []string{digest(rules.Text()), digest(rules.UpstreamText())}
}

func digest(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

// Text is what a program says to --version, without its name: the build, then a line for each of the held rules.
func Text() string {
	held := Rules()
	return fmt.Sprintf("%s\nrules %s\nupstream rules %s\n", Build(), held[0], held[1])
}
