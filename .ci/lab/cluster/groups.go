// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// groups are the folders that a kubelet makes in the control groups, version 1 and 2.
func groups() ([]string, error) {
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// NoKubelet refuses a machine that runs a kubelet already: the control groups are the one thing that the lab shares with it.
func NoKubelet() error {
	found, err := groups()
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%s is there: this machine runs a kubelet, or a lab did not end well (then remove it with rmdir, deepest first)", found[0])
	}
	return nil
}

// RemoveGroups takes away what the kubelet made.
func RemoveGroups() error {
	found, err := groups()
	if err != nil {
		return err
	}
	for _, g := range found {
		if err := removeGroup(g); err != nil {
			return fmt.Errorf("remove control groups: %w", err)
		}
	}
	return nil
}

func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
