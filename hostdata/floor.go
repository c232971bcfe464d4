// SPDX-License-Identifier: Apache-2.0

package hostdata

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

const (
	pathVMPL    = "/sys/devices/system/cpu/sev/vmpl"
	pathReports = "/sys/kernel/config/tsm/report"
	maxVMPL     = 3
)

// configfs is how an item is made and dropped. The kernel fills a new directory
// with attribute files by itself and removes them with it.
type configfs interface {
	Mkdir(path string) error
	Rmdir(path string) error
}

type kernelConfigfs struct{}

func (kernelConfigfs) Mkdir(path string) error { return os.Mkdir(path, 0o700) }
func (kernelConfigfs) Rmdir(path string) error { return os.Remove(path) }

// floor returns the privilege level that this guest's kernel runs at, the lowest that the security processor makes a report for.
// It is 0 without an SVSM or paravisor, and where the kernel is too old to tell.
func (s System) floor() (uint32, error) {
	text, err := s.readFile(pathVMPL, 16)
	if err == nil {
		return parseVMPL(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return s.floorFromConfigfs()
}

// floorFromConfigfs reads privlevel_floor of a report item that exists only for that; the report itself is not asked for.
func (s System) floorFromConfigfs() (level uint32, err error) {
	switch _, err := os.Stat(s.path(pathReports)); {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	}
	items := s.items
	if items == nil {
		items = kernelConfigfs{}
	}
	item := path.Join(pathReports, "portcullis-"+rand.Text())
	if err := items.Mkdir(s.path(item)); err != nil {
		return 0, err
	}
	defer func() {
		// An item left behind would be ours for the life of the guest.
		err = errors.Join(err, items.Rmdir(s.path(item)))
	}()
	text, err := s.readFile(path.Join(item, "privlevel_floor"), 16)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseVMPL(text)
}

func parseVMPL(text []byte) (uint32, error) {
	level, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 8)
	if err != nil || level > maxVMPL {
		return 0, fmt.Errorf("VMPL %.16q is not a number from 0 to %d", text, maxVMPL)
	}
	return uint32(level), nil
}
