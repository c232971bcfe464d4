// SPDX-License-Identifier: Apache-2.0

package initdata

import "strings"

// Fragments are the lines of the value of FragmentsKey, as they stand; none without that key.
func (d *Document) Fragments() [][]byte {
	value, ok := d.Value(FragmentsKey)
	if !ok {
		return nil
	}
	var lines [][]byte
	for _, line := range strings.Split(strings.Trim(value, "\n"), "\n") {
		lines = append(lines, []byte(line))
	}
	return lines
}
