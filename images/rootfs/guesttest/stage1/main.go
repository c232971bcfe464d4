// SPDX-License-Identifier: Apache-2.0

// Stage1 is the /init of the test guest's initial RAM disk: it loads kernel modules and starts what is tested.
//
// The kernel command line says what that is:
//
//	guesttest.verity=TABLE   the dm-verity table, with commas for spaces, of a root filesystem; /sbin/init of it is started
//	(none)                   /sbin/init of the RAM disk itself, a guest with AGENT_INIT=yes
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/go-dmverity/pkg/dm"
	"golang.org/x/sys/unix"
)

const (
	moduleList = "/modules/order" // paths, one a line, each after those it needs
	newRoot    = "/sysroot"
	setup      = "/guesttest/guest.test"
)

func main() {
	err := run()
	fmt.Fprintln(os.Stderr, "stage1:", err)
	time.Sleep(time.Second) // for the console
	os.Exit(1)              // the kernel panics
}

// run returns only on failure.
func run() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	table, err := option("guesttest.verity")
	if err != nil {
		return err
	}
	if table != "" {
		if err := switchRoot(strings.ReplaceAll(table, ",", " ")); err != nil {
			return err
		}
	} else if err := leaveClean(); err != nil {
		return err
	}
	// The kernel's own arguments and environment go on: to drop them is the next one's work.
	return unix.Exec("/sbin/init", append([]string{"/sbin/init"}, os.Args[1:]...), os.Environ())
}

func loadModules() error {
	order, err := os.ReadFile(moduleList)
	if err != nil {
		return err
	}
	for path := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func option(key string) (string, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(cmdline)) {
		if value, ok := strings.CutPrefix(word, key+"="); ok {
			return value, nil
		}
	}
	return "", nil
}

// switchRoot opens the root filesystem by its dm-verity table and makes it the root.
func switchRoot(table string) error {
	if err := openVerity(table); err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/dm-0", newRoot, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, path := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(path, newRoot+path, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", path, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	return unix.Chroot(".")
}

func openVerity(table string) error {
	fields := strings.SplitN(table, " ", 4) // start, length, "verity", parameters
	if len(fields) != 4 || fields[2] != "verity" {
		return fmt.Errorf("bad table %q", table)
	}
	length, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return fmt.Errorf("bad table %q: %w", table, err)
	}
	for range 100 { // the disk's driver probes in the background
		if _, err = os.Stat("/dev/vda"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	c, err := dm.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.CreateDevice("root"); err != nil {
		return err
	}
	if err := c.LoadTable("root", []dm.Target{{Length: length, Type: "verity", Params: fields[3]}}); err != nil {
		return err
	}
	return c.SuspendDevice("root", false)
}

// leaveClean lets the tests set the guest up and takes the mounts away again: PID 1 is to find what a kernel leaves.
func leaveClean() error {
	p, err := os.StartProcess(setup, []string{setup, "setup"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	if state, err := p.Wait(); err != nil || !state.Success() {
		return fmt.Errorf("set up: %v %w", state, err)
	}
	for _, path := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}
