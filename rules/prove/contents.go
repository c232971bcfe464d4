// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/internal/rulestest"
	"portcullis/rules/policydata"
)

// fixed are the mounts below which nothing lies: files that every container has.
var fixed = []string{"/dev/termination-log", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

// compareContents: what may be copied, and what has to be there. The rules take a copied file for every volume of its name, and
// remember what it was, so that the policies must know the same of a name, or a must know nothing of it.
func compareContents(c *comparison) {
	if !knows(c.a) {
		return
	}
	if !knows(c.b) {
		c.differ("containers[].mounts[].contents", "is bound in one only", c.filled("x")...)
		return
	}
	all := func(p *policydata.Policy, name string) []known {
		return contentsOf(p, name, slices.Sorted(maps.Keys(p.Containers)))
	}
	for _, name := range sharedNames(c.b) {
		c.contents(name, all(c.a, name), all(c.b, name))
		c.each(func(k container) {
			if b := contentsOf(c.b, name, []string{k.name}); len(b) > 0 {
				k.contents(name, contentsOf(c.a, name, []string{k.name}), b)
			}
		})
	}
	c.each(func(k container) {
		for _, destination := range slices.Sorted(maps.Keys(k.a.Mounts)) {
			a, b := k.a.Mounts[destination].Contents, k.b.Mounts[destination].Contents
			if a != nil && !hold(a, b) {
				k.differ(k.at("mounts["+destination+"].contents"), "differs", k.tampered(destination)...)
			}
		}
	})
}

func knows(p *policydata.Policy) bool {
	for _, c := range p.Containers {
		for _, m := range c.Mounts {
			if m.Contents != nil {
				return true
			}
		}
	}
	return false
}

// known is what the rules know of one mount of a name.
type known struct {
	file     bool // one below which nothing lies
	contents *policydata.Contents
}

func contentsOf(p *policydata.Policy, name string, containers []string) []known {
	var out []known
	for _, container := range containers {
		c := p.Containers[container]
		for _, destination := range slices.Sorted(maps.Keys(c.Mounts)) {
			m := c.Mounts[destination]
			k := known{slices.Contains(fixed, destination), m.Contents}
			if m.From == policydata.MountShared && m.Source == name && !slices.ContainsFunc(out, func(o known) bool { return same(o, k) }) {
				out = append(out, k)
			}
		}
	}
	return out
}

func (c *comparison) contents(name string, a, b []known) {
	nothing := !slices.ContainsFunc(a, func(k known) bool { return k.contents != nil })
	for _, k := range b {
		covered := slices.ContainsFunc(a, func(o known) bool {
			return o.file == k.file && hold(o.contents, k.contents) || nothing && (!o.file || k.file)
		})
		if !covered {
			c.differ("containers[].mounts[].contents", fmt.Sprintf("what is known of %s differs", name), append(c.filled(name), c.anyContainer(nil)...)...)
			return
		}
	}
	for _, k := range a {
		if !nothing && !slices.ContainsFunc(b, func(o known) bool { return o.file == k.file && hold(k.contents, o.contents) }) {
			c.differ("containers[].mounts[].contents", fmt.Sprintf("more is known of %s in one", name), append(c.filled(name), c.anyContainer(nil)...)...)
			return
		}
	}
}

// hold says whether contents a take all files that b does, and remember the same of them: the same ones, and others if b takes any.
func hold(a, b *policydata.Contents) bool {
	return a == nil && b == nil || a != nil && b != nil && same(a.Files, b.Files) && (a.Open || !b.Open)
}

func sharedNames(p *policydata.Policy) []string {
	var out []string
	for _, c := range p.Containers {
		for _, m := range c.Mounts {
			if m.From == policydata.MountShared {
				out = append(out, m.Source)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// filled are attempts at files of the host's choice in a volume of that name.
func (c *comparison) filled(name string) []attempt {
	top := fmt.Sprintf("%s/%064x-%016x-%s", c.b.Common.SharedDirs[0], 10, 0, name)
	var out []attempt
	for _, path := range []string{top, top + "/x", top + "/..data"} {
		for _, kind := range []string{"Regular", "Directory"} {
			out = append(out, requests(rulestest.CopyFile(path, kind)))
		}
	}
	return out
}

// tampered are attempts at the container with its volume's files as b has them, left out, or another's.
func (k container) tampered(destination string) []attempt {
	m := k.b.Mounts[destination]
	out := []attempt{k.start()}
	for _, without := range []bool{true, false} {
		out = append(out, attempt{container: k.name, before: func(all []rulestest.Request) []rulestest.Request {
			var kept []rulestest.Request
			for _, r := range all {
				path, _ := r.Input["path"].(string)
				if r.Kind == "CopyFileRequest" && strings.Contains(path, "-"+m.Source) {
					if without {
						continue
					}
					r.Input["data_sha256"], r.Input["data_size"], r.Input["file_size"] = strings.Repeat("1", 64), 1, 1
				}
				kept = append(kept, r)
			}
			return kept
		}})
	}
	return out
}

// compareLinks: a link is denied where a mount of some container lies at it or below. What more a's mounts deny is a difference.
func compareLinks(c *comparison) {
	for _, link := range lacking(linked(c.b), linked(c.a)) {
		name, inner := link.volume, link.inner
		path := fmt.Sprintf("%s/%064x-%016x-%s%s", c.b.Common.SharedDirs[0], 10, 0, name, inner)
		r := rulestest.CopyFile(path, "Symlink")
		r.Input["symlink_target"] = "..data/x"
		c.differ("containers[].mounts", fmt.Sprintf("a mount lies below %s of %s in one only", inner, name), requests(r))
	}
}

// place is one in the volumes of a name.
type place struct{ volume, inner string }

// linked are the places in volumes at or above which a mount of the same container lies.
func linked(p *policydata.Policy) []place {
	var out []place
	for _, c := range p.Containers {
		for destination, m := range c.Mounts {
			for other := range c.Mounts {
				inner, below := strings.CutPrefix(other, destination+"/")
				for below && inner != "" {
					out = append(out, place{m.Source, "/" + inner})
					inner = inner[:max(strings.LastIndex(inner, "/"), 0)]
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b place) int {
		return cmp.Or(strings.Compare(a.volume, b.volume), strings.Compare(a.inner, b.inner))
	})
	return slices.Compact(out)
}
