// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"errors"
	"fmt"

	dmverity "github.com/containerd/go-dmverity/pkg/verity"
)

// Superblock is the block that veritysetup keeps before a tree, so that "veritysetup open" needs only the devices and the
// root: BlockSize bytes, of which the tree follows. veritysetup wants the id to be set; it protects nothing.
func (t Tree) Superblock(uuid [16]byte) ([]byte, error) {
	if uuid == [16]byte{} {
		return nil, errors.New("making dm-verity superblock: no UUID given")
	}
	if len(t.Salt) > maxSalt || t.DataBlocks <= 0 {
		return nil, fmt.Errorf("making dm-verity superblock: salt of %d bytes, %d data blocks", len(t.Salt), t.DataBlocks)
	}
	sb := dmverity.DefaultSuperblock() // format 1, sha256, blocks of 4096 bytes
	sb.UUID = uuid
	sb.DataBlocks = uint64(t.DataBlocks)
	sb.SaltSize = uint16(len(t.Salt))
	copy(sb.Salt[:], t.Salt)
	raw, err := sb.Serialize()
	if err != nil {
		return nil, fmt.Errorf("making dm-verity superblock: %w", err)
	}
	return append(raw, make([]byte, BlockSize-len(raw))...), nil
}
