// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// File types in an inode's mode, as in stat(2), and the types of directory entries that they give, as in readdir(3):
// the upper four bits of the mode.
const (
	typeMask  = 0o170000
	typeFIFO  = 0o010000
	typeChar  = 0o020000
	typeDir   = 0o040000
	typeBlock = 0o060000
	typeFile  = 0o100000
	typeLink  = 0o120000

	typeShift = 12
	permMask  = 0o777
)

const (
	inodeSize      = 32
	direntSize     = 32
	flagOpaque     = 1
	linknameOffset = 157 // of the link's target in a tar header
	linknameSize   = 100
)

// node is a file of the tree, which has several names if it is hard-linked.
type node struct {
	mode         uint16 // 0, not even a directory's, of what only its contents name
	opaque       bool
	linked       bool // has had a second name
	mtime        uint64
	owner, group uint32
	size, offset uint64
	children     map[string]*node

	ino uint64 // from 1; 0 until numbered
}

// tarIndex is the tree that tardev makes of a layer's entries: a later entry replaces an earlier one of the same name and
// all that is in it, and what tardev cannot show is left out, and passed to leave.
type tarIndex struct {
	root  *node
	nodes int
	leave func(about string)
}

func newTarIndex(leave func(about string)) *tarIndex {
	return &tarIndex{root: &node{mode: typeDir | 0o555}, leave: leave}
}

// add puts an entry into the tree; its data begins at offset in the tar.
func (x *tarIndex) add(h *tar.Header, raw rawHeader, offset int64) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // no file of its own, and what was read last is no header
	}
	n, why := newNode(h, raw, offset)
	if why != "" {
		x.leave(fmt.Sprintf("%.200q: %s", h.Name, why))
		return nil
	}
	if raw.typeflag() == tar.TypeLink {
		return x.link(h.Name, h.Linkname)
	}
	parts, ok := splitPath(h.Name)
	if !ok {
		x.leave(fmt.Sprintf("%.200q: its path leads out of the layer", h.Name))
		return nil
	}
	if n := len(parts); n > 0 {
		if name, white := strings.CutPrefix(parts[n-1], ".wh."); white {
			return x.whiteout(parts[:n-1], name)
		}
	}
	at, err := x.place(parts)
	if err != nil {
		return err
	}
	if len(at.children) > 0 {
		x.leave(fmt.Sprintf("%.200q: its entry comes after %d that are in it, and these are lost", h.Name, len(at.children)))
	}
	n.linked = at.linked
	*at = *n
	return nil
}

// whiteout marks a directory opaque, or makes name the device 0:0 by which overlayfs knows a removed file.
func (x *tarIndex) whiteout(dir []string, name string) error {
	if name == ".wh..opq" {
		n, err := x.place(dir)
		if err != nil {
			return err
		}
		n.opaque = true
		return nil
	}
	n, err := x.place(append(slices.Clone(dir), name))
	if err != nil {
		return err
	}
	n.children = nil
	n.mode = n.mode&^typeMask | typeChar
	n.size, n.offset = 0, 0
	return nil
}

// link gives a file a second name. The target's path is made where it is not there, and stays.
func (x *tarIndex) link(name, target string) error {
	to, ok := splitPath(target)
	if !ok {
		x.leave(fmt.Sprintf("%.200q: hard link out of the layer", name))
		return nil
	}
	n, err := x.place(to)
	if err != nil {
		return err
	}
	if n.mode&typeMask != typeFile {
		x.leave(fmt.Sprintf("%.200q: hard link to %.200q, which is no file of this layer", name, target))
		return nil
	}
	parts, ok := splitPath(name)
	if !ok {
		x.leave(fmt.Sprintf("%.200q: its path leads out of the layer", name))
		return nil
	}
	if len(parts) == 0 {
		return errors.New("hard link in place of the root")
	}
	dir, err := x.place(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	n.linked = true
	return x.put(dir, parts[len(parts)-1], n)
}

// place returns the node at a path; what is missing is made, without a type.
func (x *tarIndex) place(parts []string) (*node, error) {
	n := x.root
	for _, p := range parts {
		next := n.children[p]
		if next == nil {
			next = &node{}
			if err := x.put(n, p, next); err != nil {
				return nil, err
			}
		}
		n = next
	}
	return n, nil
}

func (x *tarIndex) put(dir *node, name string, child *node) error {
	if x.nodes++; x.nodes > maxLayerEntries {
		return fmt.Errorf("more than %d names", maxLayerEntries)
	}
	if dir.children == nil {
		dir.children = map[string]*node{}
	}
	dir.children[name] = child
	return nil
}

// newNode takes what tardev takes: names and sizes with their extensions, but owner, mode and time of the plain header. It
// returns why tardev leaves an entry out.
func newNode(h *tar.Header, raw rawHeader, offset int64) (*node, string) {
	mode, ok := raw.number(100, 8)
	if !ok {
		return nil, "its mode is no number"
	}
	n := &node{mode: uint16(mode) & permMask}
	owner, _ := raw.number(108, 8) // 0 where it is no number
	group, _ := raw.number(116, 8)
	n.owner, n.group = uint32(owner), uint32(group)
	n.mtime, _ = raw.number(136, 12)
	switch raw.typeflag() {
	case tar.TypeReg, 0:
		n.mode |= typeFile
		n.size, n.offset = uint64(h.Size), uint64(offset)
	case tar.TypeDir:
		n.mode |= typeDir
	case tar.TypeFifo:
		n.mode |= typeFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.mode |= typeChar
		if raw.typeflag() == tar.TypeBlock {
			n.mode = n.mode&^typeMask | typeBlock
		}
		major, ok1 := raw.number(329, 8)
		minor, ok2 := raw.number(337, 8)
		if !ok1 || !ok2 || !raw.hasDevices() {
			return nil, "its device numbers are missing"
		}
		n.offset = minor | major<<32
	case tar.TypeSymlink:
		n.mode |= typeLink
		n.size, n.offset = uint64(len(h.Linkname)), uint64(offset)-sectorSize+linknameOffset
		if h.Linkname == "" || raw.linkname() != h.Linkname {
			return nil, fmt.Sprintf("its target has %d characters, which do not fit into the tar header's own field", len(h.Linkname))
		}
	case tar.TypeLink:
		if h.Linkname == "" {
			return nil, "hard link without a target"
		}
	default:
		return nil, fmt.Sprintf("tarfs has no files of type %q", raw.typeflag())
	}
	return n, ""
}

// splitPath is the clean path of an entry, false where it leads out of the root; no parts mean the root.
func splitPath(name string) ([]string, bool) {
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			if len(parts) == 0 {
				return nil, false
			}
			parts = parts[:len(parts)-1]
		default:
			parts = append(parts, p)
		}
	}
	return parts, true
}

// writeTo writes the index that follows size bytes of tar: inodes, directory entries, names, and zeros up to the
// superblock, which is the last sector of a block of its own. Everything is little-endian and ordered as the tree is
// walked: breadth first, names in byte order.
func (x *tarIndex) writeTo(w io.Writer, size int64) error {
	nodes, err := x.number()
	if err != nil {
		return err
	}
	offset := uint64(size) + inodeSize*uint64(len(nodes))
	for _, n := range nodes {
		if n.mode&typeMask == typeDir {
			n.offset, n.size = offset, direntSize*uint64(len(n.children))
			offset += n.size
		}
	}
	var buf []byte
	for _, n := range nodes {
		buf = n.appendInode(buf)
	}
	var names bytes.Buffer
	for _, n := range nodes {
		if n.mode&typeMask != typeDir {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			buf = binary.LittleEndian.AppendUint64(buf, n.children[name].ino)
			buf = binary.LittleEndian.AppendUint64(buf, offset+uint64(names.Len()))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(len(name)))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(n.children[name].mode>>typeShift))
			names.WriteString(name)
		}
	}
	buf = append(buf, names.Bytes()...)

	// The end that is rounded up counts the names once more.
	end := (size + int64(len(buf)+names.Len()) + BlockSize - 1) / BlockSize * BlockSize
	buf = append(buf, make([]byte, end+BlockSize-sectorSize-size-int64(len(buf)))...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(size))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(nodes)))
	buf = append(buf, make([]byte, sectorSize-16)...)
	_, err = w.Write(buf)
	return err
}

// number gives inode numbers in the order of the walk and returns the nodes in that order. What lies in something that is
// no directory has an inode and no name.
func (x *tarIndex) number() ([]*node, error) {
	var nodes []*node
	reach := func(n *node) {
		if n.ino == 0 {
			nodes = append(nodes, n)
			n.ino = uint64(len(nodes))
		}
	}
	reach(x.root)
	for next := 0; next < len(nodes); next++ {
		n := nodes[next]
		names := slices.Sorted(maps.Keys(n.children))
		if n.linked && len(names) > 0 {
			return nil, fmt.Errorf("tar: a file with two names has %.200q in it", names[0])
		}
		if n.mode&typeMask != typeDir && len(names) > 0 {
			x.leave(fmt.Sprintf("%d names such as %.200q: what they are in has no entry of its own as a directory, and they are lost with it", len(names), names[0]))
		}
		for _, name := range names {
			reach(n.children[name])
		}
	}
	return nodes, nil
}

func (n *node) appendInode(b []byte) []byte {
	var flags byte
	if n.opaque {
		flags = flagOpaque
	}
	b = binary.LittleEndian.AppendUint16(b, n.mode)
	b = append(b, flags, byte(n.mtime>>32&0xf))
	b = binary.LittleEndian.AppendUint32(b, n.owner)
	b = binary.LittleEndian.AppendUint32(b, n.group)
	b = binary.LittleEndian.AppendUint32(b, uint32(n.mtime))
	b = binary.LittleEndian.AppendUint64(b, n.size)
	return binary.LittleEndian.AppendUint64(b, n.offset)
}

// rawHeader is the 512-byte header of an entry, whose extensions archive/tar has merged into tar.Header.
type rawHeader [sectorSize]byte

// typeflag is the type of the entry as it is written. A name that ends in a slash makes no directory of a file.
func (r rawHeader) typeflag() byte { return r[156] }

// hasDevices reports whether the header is of a kind that has device numbers.
func (r rawHeader) hasDevices() bool { return string(r[257:262]) == "ustar" }

// number reads a numeric field: octal digits up to a zero byte, or base 256 when the first bit is set. It returns false
// for what is no number, which an empty field is not either.
func (r rawHeader) number(at, length int) (uint64, bool) {
	field := r[at : at+length]
	if field[0]&0x80 != 0 {
		n := binary.BigEndian.Uint64(field[length-8:])
		if length == 8 {
			n &^= 1 << 63
		}
		return n, true
	}
	digits, _, _ := bytes.Cut(field, []byte{0})
	n, err := strconv.ParseUint(strings.TrimSpace(string(digits)), 8, 64)
	return n, err == nil
}

func (r rawHeader) linkname() string {
	field := r[linknameOffset : linknameOffset+linknameSize]
	if end := bytes.IndexByte(field, 0); end >= 0 {
		field = field[:end]
	}
	return string(field)
}
