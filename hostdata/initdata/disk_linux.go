// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openDisk opens the block device at path for reading.
func openDisk(path string) (io.ReadCloser, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: not a block device", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}
