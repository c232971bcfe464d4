// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"portcullis/agentproto/agentpb"
)

// mountTypes are the types of mount that show a container its own things, or a volume. Others show the guest's kernel: devtmpfs
// all devices, configfs the TEE's reports, debugfs and tracefs everything.
var mountTypes = []string{
	"", "none", "bind", "rbind", "local", "proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "hugetlbfs", "shm",
	"overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "erofs", "squashfs", "vfat", "exfat", "iso9660", "udf", "tar", "virtiofs", "virtio-fs", "9p",
	"nfs", "nfs3", "nfs4", "cifs", "smb3", "ceph", "fuse", "raw", "zfs", "rafs", "image_guest_pull",
}

// deviceAddress is how the runtime gives the place of a disk on its bus: 02/03, 0:1, 0.0.0001, 0000:00:01.0.
var deviceAddress = regexp.MustCompile(`^[0-9a-fA-F]+([.:/][0-9a-fA-F]+)*$`)

func (c *inspection) mountType(field, name string) error {
	if slices.Contains(mountTypes, name) || strings.HasPrefix(name, "fuse.") {
		return nil
	}
	return c.refusal(field, allowMount+printable(name), "is %q, which shows more than a volume", printable(name))
}

// printable shortens text that the host chose.
func printable(s string) string { return fmt.Sprintf("%.64s", s) }

func isBind(kind string, options []string) bool {
	return kind == "bind" || kind == "rbind" || slices.ContainsFunc(options, func(o string) bool {
		return slices.ContainsFunc(strings.Split(o, ","), func(w string) bool { return w == "bind" || w == "rbind" || w == "move" })
	})
}

func (c *inspection) mounts(list []*agentpb.Mount) error {
	for i, m := range list {
		field := fmt.Sprintf("OCI.Mounts[%d]", i)
		if err := c.mountType(field+".type", m.GetType()); err != nil {
			return err
		}
		if err := c.options(field+".options", m.GetOptions()); err != nil {
			return err
		}
		var err error
		if isBind(m.GetType(), m.GetOptions()) {
			err = c.required(field+".source", m.GetSource())
		} else {
			err = c.source(field+".source", m.GetSource())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// source checks what is mounted where it need not be a path: a label such as proc or tmpfs, or the address of a disk.
func (c *inspection) source(field, name string) error {
	switch {
	case strings.HasPrefix(name, "/"):
		return c.path(field, name)
	case strings.Contains(name, "\x00"):
		return c.refusal(field, "", "has a zero byte")
	case name == "." || name == "..", strings.Contains(name, "/") && !deviceAddress.MatchString(name):
		return c.refusal(field, "", "is no absolute path")
	}
	return nil
}

// guestPull is the storage driver whose source is the name of an image, and whose driver options hold the image's annotations.
const guestPull = "image_guest_pull"

func (c *inspection) storages(list []*agentpb.Storage) error {
	for i, s := range list {
		field := fmt.Sprintf("storages[%d]", i)
		if err := c.storage(field, s); err != nil {
			return err
		}
	}
	return nil
}

func (c *inspection) storage(field string, s *agentpb.Storage) error {
	bind := isBind(s.GetFstype(), s.GetOptions()) || s.GetDriver() == "bind" || s.GetDriver() == "watchable-bind"
	var err error
	switch {
	case bind && s.GetDriver() != guestPull:
		err = c.required(field+".source", s.GetSource())
	case s.GetDriver() != guestPull || strings.HasPrefix(s.GetSource(), "/"):
		err = c.source(field+".source", s.GetSource())
	}
	if err != nil {
		return err
	}
	if err := c.path(field+".mount_point", s.GetMountPoint()); err != nil {
		return err
	}
	if err := c.mountType(field+".fstype", s.GetFstype()); err != nil {
		return err
	}
	if err := c.options(field+".options", s.GetOptions()); err != nil {
		return err
	}
	return c.driverOptions(field+".driver_options", s)
}

// directories are the options of mount(8) that name directories and devices of the guest.
var directories = []string{"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "device", "journal_path", "logdev", "rtdev", "loop"}

// options checks each absolute path that an option holds, also one that is written with escapes, as overlay reads them; those
// that name directories must be absolute.
func (c *inspection) options(field string, options []string) error {
	for _, o := range options {
		if strings.Contains(o, "\x00") {
			return c.refusal(field, "", "has a zero byte")
		}
		for _, form := range []string{o, strings.ReplaceAll(o, `\`, "")} {
			for _, option := range strings.Split(form, ",") {
				if err := c.option(field, option); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *inspection) option(field, option string) error {
	key, value, _ := strings.Cut(strings.TrimSpace(option), "=")
	if slices.Contains(directories, key) {
		for _, dir := range strings.Split(value, ":") {
			if err := c.path(field, dir); err != nil {
				return err
			}
		}
		return nil
	}
	for _, token := range strings.FieldsFunc(option, isBetweenPaths) {
		if path.IsAbs(token) {
			if err := c.place(field, path.Clean(token)); err != nil {
				return err
			}
		}
	}
	return nil
}

// driverOptions checks options for the agent itself, which makes directories by some, and mounts on them.
func (c *inspection) driverOptions(field string, s *agentpb.Storage) error {
	check := c.driverWord
	if s.GetDriver() == guestPull {
		check = c.annotation
	}
	for _, o := range s.GetDriverOptions() {
		for _, token := range strings.FieldsFunc(o, isBetweenPaths) {
			if err := check(field, token); err != nil {
				return err
			}
		}
	}
	return nil
}

// driverWord checks a word that may be a path, also one relative to the agent's directory, which is the root.
func (c *inspection) driverWord(field, word string) error {
	if path.IsAbs(word) {
		return c.path(field, word)
	}
	if slices.Contains(strings.Split(word, "/"), "..") {
		return c.refusal(field, "", "has a part that is ..")
	}
	return c.place(field, path.Clean("/"+word))
}

// annotation checks a word of a pull's options, which may hold a whole image's annotations: any path is harmless in them but the
// protected ones.
func (c *inspection) annotation(field, word string) error {
	if !path.IsAbs(word) {
		return nil
	}
	if guarded := c.below(path.Clean(word)); guarded != "" {
		return c.refusal(field, "", "names %s, which belongs to the policy gate", guarded)
	}
	return nil
}

func isBetweenPaths(r rune) bool { return strings.ContainsRune("=:,; \t\r\n\x00\"'{}[]()", r) }
