// SPDX-License-Identifier: Apache-2.0

package hostdata

// Internals that the external tests reach.
var (
	ParseSNP      = parseSNP
	ParseTDREPORT = parseTDREPORT
	OpenNode      = openNode
)

// WithConfigfs returns s with its configfs items made and dropped by items.
func (s System) WithConfigfs(items configfs) System { s.items = items; return s }
