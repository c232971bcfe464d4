// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// knownCgroups are the cgroups of the guest's own, by the number that the kernel gives with a socket: the inode of the cgroup's
// directory (cgroup v2). A socket that was made elsewhere needs no look at any process.
type knownCgroups struct {
	own cgroups

	mu     sync.Mutex
	ids    map[uint64]bool // nil: none were read, or there is no cgroup v2 to read them from
	listed time.Time
}

// Bounds of the list.
const (
	relist     = 100 * time.Millisecond // between two looks at the tree, which a peer that is not known asks for
	maxListed  = 4096                   // directories
	cgroupRoot = "/sys/fs/cgroup"
)

// check refuses a socket that was made in a cgroup that may be a container's. Of a kernel that does not say, 0, and without cgroup
// v2, nothing is known here.
func (k *knownCgroups) check(id uint64) error {
	if id == 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ids[id] {
		return nil
	}
	if time.Since(k.listed) > relist {
		k.ids, k.listed = k.list(), time.Now()
	}
	if len(k.ids) == 0 || k.ids[id] {
		return nil
	}
	return errForeign
}

// list reads the tree of cgroup v2 where the guest's own processes are, and nowhere else.
func (k *knownCgroups) list() map[uint64]bool {
	root := cgroupRoot
	for _, path := range []string{cgroupRoot, cgroupRoot + "/unified"} {
		var s unix.Statfs_t
		if err := unix.Statfs(path, &s); err == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
			root = path
			break
		}
		root = ""
	}
	if root == "" {
		return nil
	}
	ids := map[uint64]bool{}
	add := func(dir string) {
		var s unix.Stat_t
		if len(ids) < maxListed && unix.Stat(filepath.Join(root, dir), &s) == nil {
			ids[s.Ino] = true
		}
	}
	add("/")
	add("/init.scope")
	add(k.own[""])
	services, err := os.ReadDir(root + "/system.slice")
	if err != nil {
		services = nil // a guest without systemd
	}
	for _, s := range services {
		if where := "/system.slice/" + s.Name(); ofGuest(where) {
			add(where)
		}
	}
	_ = filepath.WalkDir(root+"/user.slice", func(path string, d fs.DirEntry, err error) error {
		if err != nil || len(ids) >= maxListed {
			return filepath.SkipAll
		}
		if d.IsDir() {
			add(path[len(root):])
		}
		return nil
	})
	return ids
}
