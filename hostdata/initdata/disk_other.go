// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package initdata

import (
	"errors"
	"fmt"
	"io"
)

// openDisk fails: the disks of a guest are Linux devices.
func openDisk(path string) (io.ReadCloser, error) {
	return nil, fmt.Errorf("open %s: %w", path, errors.ErrUnsupported)
}
