// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// leaveStart gives back the pages of the binary that only the start needed: code and tables of packages that are initialised once,
// the compiler of policies. What is needed again comes back from the page cache.
func leaveStart() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		start, end, ok := readOnly(lines.Text(), exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}

// readOnly reads a line of /proc/PID/maps: the bounds of a mapping of exe that cannot be written, so that nothing is lost with
// its pages.
func readOnly(line, exe string) (start, end uintptr, ok bool) {
	var bounds, mode, offset, device, inode, path string
	if n, _ := fmt.Sscan(line, &bounds, &mode, &offset, &device, &inode, &path); n != 6 || path != exe || len(mode) < 2 || mode[1] != '-' {
		return 0, 0, false
	}
	from, to, found := strings.Cut(bounds, "-")
	a, err := strconv.ParseUint(from, 16, 64)
	if err != nil || !found {
		return 0, 0, false
	}
	b, err := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), err == nil
}
