// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// IndexLayer copies the tar layer to w and adds the tarfs index, so that w holds what tardev puts on the block device
// before the hash tree.
func IndexLayer(w io.Writer, layer io.Reader) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	if err := errors.Join(appendIndex(bw, layer, nil), bw.Flush()); err != nil {
		return fmt.Errorf("indexing layer: %w", err)
	}
	return nil
}
