// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/internal/emulator/shim"
)

// platforms are how Kata is configured where each of the generator's platforms is meant to run, with the Go shim. The platform
// tardev has a snapshotter and a shim of its own, of which there are no recordings.
var platforms = map[string]shim.Config{
	"guest-pull": {Kind: shim.Go, GuestPull: true, PullMetadata: true, Network: true, EmptyDirs: shim.EncryptedBlocks},
	"peer-pods":  {Kind: shim.Go, GuestPull: true, PullMetadata: true},
	"host-pull":  {Kind: shim.Go, SharedFiles: true, Network: true, EmptyDirs: shim.HostDirs},
	"non-coco":   {Kind: shim.Go, SharedFiles: true, Network: true, EmptyDirs: shim.HostDirs},
}

// Platforms are the names of the platforms that can be emulated.
func Platforms() []string { return slices.Sorted(maps.Keys(platforms)) }

// Platform is the configuration of a platform with one of the shims.
func Platform(name string, kind shim.Kind) (shim.Config, error) {
	c, ok := platforms[name]
	if !ok {
		return c, fmt.Errorf("platform %q is not emulated: one of %s", name, strings.Join(Platforms(), ", "))
	}
	c.Kind = kind
	return c, nil
}
