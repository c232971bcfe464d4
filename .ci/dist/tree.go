// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// entry is a file, or a symbolic link, or a folder of its own mode.
type entry struct {
	path string // without a slash at its beginning
	mode fs.FileMode
	from string // file with the content
	text []byte // content, where there is no file
	link string // target
	dir  bool
}

// product is what a package installs.
type product struct {
	name, summary string
	tree          []entry // of /usr
}

// tools are what runs outside of guests.
func (r *release) tools(b *built) product {
	p := product{name: "portcullis-tools", summary: "Make, explain and verify the policies of confidential pods"}
	for _, name := range []string{"genpolicy", "policyctl"} {
		p.tree = append(p.tree, entry{path: "bin/" + name, mode: 0o755, from: filepath.Join(b.dir, name)},
			entry{path: "share/portcullis/" + name + ".cdx.json", mode: 0o644, from: filepath.Join(b.dir, name+".cdx.json")})
	}
	p.tree = append(p.tree, entry{path: "bin/kubectl-portcullis", link: "policyctl"}, r.licence(p.name))
	p.tree = append(p.tree, folder(filepath.Join(r.work, "docs"), "share")...)
	return p
}

// guest is policyd with what lays it down in a root filesystem.
func (r *release) guest(b *built) product {
	p := product{name: "portcullis-policyd", summary: "Policy gate of confidential pods, and its installer for guest images"}
	const kit = "share/portcullis/guest/"
	p.tree = []entry{
		{path: "bin/policyd", mode: 0o755, from: filepath.Join(b.dir, "policyd")},
		{path: "libexec/portcullis/init", mode: 0o755, from: filepath.Join(b.dir, "portcullis-init")},
		{path: "share/portcullis/policyd.cdx.json", mode: 0o644, from: filepath.Join(b.dir, "policyd.cdx.json")},
		{path: "share/man/man8/policyd.8", mode: 0o644, from: filepath.Join(r.source, "images/rootfs/policyd.8")},
		{path: "bin/portcullis-guest-install", mode: 0o755, from: filepath.Join(r.source, "images/rootfs/guest-install.sh")},
		{path: kit + "images/rootfs/install.sh", mode: 0o755, from: filepath.Join(r.source, "images/rootfs/install.sh")},
		r.licence(p.name),
	}
	for _, dir := range []string{"images/rootfs/etc", "images/rootfs/systemd", "images/rootfs/peerpod", "images/rootfs/osbuilder", "rules/default"} {
		p.tree = append(p.tree, folder(filepath.Join(r.source, dir), kit+dir)...)
	}
	return p
}

func (r *release) licence(name string) entry {
	return entry{path: "share/doc/" + name + "/copyright", mode: 0o644, from: filepath.Join(r.source, "LICENSE")}
}

// folder are the files below a folder, put below another path.
func folder(from, to string) []entry {
	var out []entry
	err := filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		e := entry{path: path.Join(to, filepath.ToSlash(rel)), mode: 0o644, from: at}
		if info.Mode()&0o111 != 0 {
			e.mode = 0o755
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			e.from = ""
			e.link, err = os.Readlink(at)
		}
		out = append(out, e)
		return err
	})
	if err != nil {
		panic(err) // the source is not readable
	}
	return out
}

// write writes entries as a tar, root's, of the release's time.
func (r *release) write(out io.Writer, prefix string, tree []entry) error {
	tree = slices.Clone(tree)
	slices.SortFunc(tree, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	w := tar.NewWriter(out)
	made := map[string]bool{}
	for _, e := range tree {
		if err := r.writeFolders(w, made, path.Join(prefix, e.path)); err != nil {
			return err
		}
		if err := r.writeEntry(w, prefix, e); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
		made[path.Join(prefix, e.path)] = e.dir
	}
	return w.Close()
}

// writeFolders writes the folders above a path that are not there yet.
func (r *release) writeFolders(w *tar.Writer, made map[string]bool, at string) error {
	dir := path.Dir(at)
	if dir == "." || made[dir] {
		return nil
	}
	if err := r.writeFolders(w, made, dir); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: r.time, Format: tar.FormatUSTAR})
}

func (r *release) writeEntry(w *tar.Writer, prefix string, e entry) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(prefix, e.path), Mode: int64(e.mode.Perm()), ModTime: r.time, Format: tar.FormatUSTAR}
	if e.dir {
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", int64(e.mode.Perm())
		if e.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		return w.WriteHeader(h)
	}
	if e.link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		return w.WriteHeader(h)
	}
	text, err := e.content()
	if err != nil {
		return err
	}
	h.Size = int64(len(text))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func (e entry) content() ([]byte, error) {
	if e.from == "" {
		return e.text, nil
	}
	return os.ReadFile(e.from)
}

// archive writes the tar.gz of a product: its files below a folder that says what it is.
func (r *release) archive(p product, arch string) error {
	name := fmt.Sprintf("%s-%s-linux-%s", p.name, r.version, arch)
	var text bytes.Buffer
	z, err := gzip.NewWriterLevel(&text, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := r.write(z, name, p.tree); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, name+".tar.gz"), text.Bytes(), 0o644)
}

// lists puts the lists of what is in the programs beside them.
func (r *release) lists(b *built) error {
	for _, p := range programs {
		text, err := os.ReadFile(filepath.Join(b.dir, p.name+".cdx.json"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.out, fmt.Sprintf("%s-%s-linux-%s.cdx.json", p.name, r.version, b.arch)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
