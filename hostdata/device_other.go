// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package hostdata

import (
	"errors"
	"fmt"
)

// openNode fails: TEE guest devices are Linux devices.
func openNode(path string) (Device, error) {
	return nil, fmt.Errorf("open %s: %w", path, errors.ErrUnsupported)
}
