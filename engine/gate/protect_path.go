// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kernelTrees are where the kernel shows processes, devices and itself, and where the guest's services are steered: what lies
// below leads to protected things by other names, such as /proc/1/root and /dev/char/10:224.
var kernelTrees = []string{
	"/proc", "/sys", "/dev/char", "/dev/block", "/dev/disk", "/dev/fd", "/dev/mapper", "/dev/core", "/dev/mem", "/dev/kmem", "/dev/port",
	"/dev/kmsg", "/dev/cpu", "/dev/snapshot", "/dev/vtpmx", "/dev/initctl", "/run/initctl", "/run/systemd", "/run/dbus", "/run/udev", "/var/run",
}

// namedPath is a path with the field that names it.
type namedPath struct{ field, path string }

// path checks the path of something in the guest; an empty one names nothing.
func (c *inspection) path(field, name string) error {
	if name == "" {
		return nil
	}
	if strings.Contains(name, "\x00") {
		return c.refusal(field, "", "has a zero byte")
	}
	if !path.IsAbs(name) {
		return c.refusal(field, "", "is no absolute path")
	}
	clean := path.Clean(name)
	if err := c.place(field, clean); err != nil {
		return err
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || part == "." {
			return c.refusal(field, "", "has a part that is %s", part)
		}
	}
	if !slices.Contains(c.allow, clean) {
		c.walk = append(c.walk, namedPath{field, clean})
	}
	return nil
}

// required is path for a field that may not be empty.
func (c *inspection) required(field, name string) error {
	if name == "" {
		return c.refusal(field, "", "is empty, which is the directory that the agent is in")
	}
	return c.path(field, name)
}

// place checks where a clean path is: it must not be protected, lie below what is, hold it, or be in a tree of the kernel.
func (c *inspection) place(field, clean string) error {
	if clean == "/var/run" {
		clean = "/run"
	}
	if guarded := c.below(clean); guarded != "" {
		return c.refusal(field, "", "names %s, which belongs to the policy gate", guarded)
	}
	if guarded := c.above(clean); guarded != "" {
		word := "" // what the gate is made of stays out of reach, the kernel's trees may be given away
		if strings.HasPrefix(guarded, "/dev/") || strings.HasPrefix(guarded, "/sys/") {
			word = clean
		}
		if clean == "/" {
			word = ""
		}
		return c.refusal(field, word, "names %s, which belongs to the policy gate", guarded)
	}
	for _, tree := range kernelTrees {
		if clean == tree || holds(tree, clean) || holds(clean, tree) {
			return c.refusal(field, clean, "leads to %s, where the policy gate has other names", tree)
		}
	}
	return nil
}

// below returns the protected path that name is or lies below, else nothing.
func (p *protected) below(name string) string {
	if rest, ok := strings.CutPrefix(name, "/var/run/"); ok {
		name = "/run/" + rest // as every image calls it
	}
	for _, guarded := range p.paths {
		stem, open := strings.CutSuffix(guarded, "*")
		if open && strings.HasPrefix(name, stem) || name == guarded || holds(guarded, name) {
			return stem
		}
	}
	return ""
}

// above returns the protected path that the directory name holds, else nothing.
func (p *protected) above(name string) string {
	for _, guarded := range p.paths {
		if stem, _ := strings.CutSuffix(guarded, "*"); holds(name, stem) {
			return stem
		}
	}
	return ""
}

// holds reports whether dir holds name, both clean.
func holds(dir, name string) bool {
	rest, below := strings.CutPrefix(name, dir)
	return dir == "/" && name != "/" || below && strings.HasPrefix(rest, "/")
}

// followed refuses paths that lead through a link of the image, such as /var/run: they name what lies behind it.
func (c *inspection) followed() error {
	if len(c.walk) == 0 {
		return nil
	}
	found, link, err := c.links.find(c.walk)
	switch {
	case err != nil:
		return c.refusal(found.field, "", "cannot be looked at: %v", err)
	case link != "":
		return c.refusal(found.field, found.path, "leads through the link %s", link)
	}
	return nil
}

// linkFinder looks for links in paths of the guest. File systems of the host's may make it wait for ever, so only a few look
// at a time, and nobody waits long for them.
type linkFinder chan struct{}

// Bounds of a linkFinder.
const (
	linkFinders  = 4
	linkPatience = 2 * time.Second
)

// errNoLook says that looking for links takes too long.
var errNoLook = errors.New("its file system does not answer")

func newLinkFinder() linkFinder { return make(linkFinder, linkFinders) }

// find returns the first of paths that leads through a link, with that link.
func (f linkFinder) find(paths []namedPath) (namedPath, string, error) {
	type finding struct {
		at   namedPath
		link string
		err  error
	}
	late := time.NewTimer(linkPatience)
	defer late.Stop()
	select {
	case f <- struct{}{}:
	case <-late.C:
		return paths[0], "", errNoLook
	}
	done := make(chan finding, 1)
	go func() {
		defer func() { <-f }()
		for _, p := range paths {
			if link, err := firstLink(p.path); link != "" || err != nil {
				done <- finding{p, link, err}
				return
			}
		}
		done <- finding{}
	}()
	select {
	case r := <-done:
		return r.at, r.link, r.err
	case <-late.C:
		return paths[0], "", errNoLook
	}
}

// firstLink returns the first link among a clean path and the directories above it. What is not there is no link.
func firstLink(name string) (string, error) {
	var found unix.Stat_t // what os.Lstat makes of it would be garbage by the megabyte
	for end := 1; end <= len(name); end++ {
		if end < len(name) && name[end] != '/' {
			continue
		}
		err := lstat(name[:end], &found)
		switch {
		case err == nil && found.Mode&unix.S_IFMT == unix.S_IFLNK:
			return name[:end], nil
		case err == nil:
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR): // the latter where something above it is a file
			return "", nil
		default:
			return "", errors.New("its directory cannot be read")
		}
	}
	return "", nil
}

// lstat is unix.Lstat until no signal interrupts it.
func lstat(name string, found *unix.Stat_t) error {
	for {
		if err := unix.Lstat(name, found); err != unix.EINTR {
			return err
		}
	}
}
