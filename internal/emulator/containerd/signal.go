// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StopSignal is the number of the signal that ends a container of the image.
func (i Image) StopSignal() uint32 {
	name := strings.ToUpper(i.Config.StopSignal)
	if n, err := strconv.ParseUint(name, 10, 8); err == nil {
		return uint32(n)
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return uint32(n)
	}
	return uint32(unix.SIGTERM)
}
