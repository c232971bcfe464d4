// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"portcullis/internal/bounded"
)

// cgroups are the cgroups of a process by hierarchy: "" is that of cgroup v2, the others are the controllers of v1.
type cgroups map[string]string

// maxCgroups bounds what is read of a /proc/PID/cgroup file, in bytes.
const maxCgroups = 64 << 10

// cgroupsOf reads the cgroups of a process: its id, or self.
func cgroupsOf(pid string) (cgroups, error) {
	text, err := bounded.ReadFile(path.Join("/proc", pid, "cgroup"), maxCgroups)
	if err != nil {
		return nil, fmt.Errorf("read cgroups of process %s: %w", pid, err)
	}
	return parseCgroups(string(text))
}

var errCgroups = errors.New("not the lines of a /proc/PID/cgroup file")

// parseCgroups reads lines ID:CONTROLLERS:PATH, see cgroups(7).
func parseCgroups(text string) (cgroups, error) {
	c := cgroups{}
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, where, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !strings.HasPrefix(where, "/") {
			return nil, errCgroups
		}
		c[controllers] = where
	}
	if len(c) == 0 {
		return nil, errCgroups
	}
	return c, nil
}

// ForeignCgroupError names the cgroup because of which a peer is not let in.
type ForeignCgroupError struct{ Path string }

func (e *ForeignCgroupError) Error() string {
	return fmt.Sprintf("the peer is in cgroup %.200q, which may be a container's", e.Path)
}

// check refuses a process that may be in a container: in any hierarchy, one that is not at the root, not where this process
// is, and not where systemd keeps its services and logins.
func (own cgroups) check(peer cgroups) error {
	for _, controllers := range slices.Sorted(maps.Keys(peer)) {
		if where := peer[controllers]; where != own[controllers] && !ofGuest(where) {
			return &ForeignCgroupError{Path: where}
		}
	}
	return nil
}

// ofGuest says whether a cgroup is one that the guest's own processes are in.
func ofGuest(where string) bool {
	dir, name := path.Split(where)
	switch {
	case where != path.Clean(where):
		return false
	case where == "/", where == "/init.scope":
		return true
	case dir == "/system.slice/":
		return strings.HasSuffix(name, ".service")
	}
	return strings.HasPrefix(where, "/user.slice/")
}
