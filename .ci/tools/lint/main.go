// SPDX-License-Identifier: Apache-2.0

// Lint is a tool for go vet -vettool: errors compared and wrapped as errors (errorlint), and no copies of loop variables that
// the language makes needless (copyloopvar). As a tool of go vet it looks again only at what has changed.
package main

import (
	"github.com/karamaru-alpha/copyloopvar"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() {
	unitchecker.Main(errorlint.NewAnalyzer(), copyloopvar.NewAnalyzer())
}
