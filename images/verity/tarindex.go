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
	mode         uint16
	opaque       bool
	mtime        uint64
	owner, group uint32
	size, offset uint64
	target       string // of a symbolic link that the header has no room for
	children     map[string]*node

	ino uint64 // from 1; 0 until numbered
}

// tarIndex is the tree that a layer's entries make, in which a later entry replaces an earlier one of the same name.
type tarIndex struct{ root *node }

func newTarIndex() *tarIndex { return &tarIndex{root: &node{mode: typeDir | 0o555}} }

// add puts an entry into the tree; its data begins at offset in the tar.
func (x *tarIndex) add(h *tar.Header, raw rawHeader, offset int64) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := splitPath(h.Name)
	if err != nil {
		return err
	}
	if n := len(parts); n > 0 {
		if name, white := strings.CutPrefix(parts[n-1], ".wh."); white {
			return x.whiteout(parts[:n-1], name)
		}
	}
	if h.Typeflag == tar.TypeLink {
		return x.link(parts, h.Linkname)
	}
	n, err := newNode(h, raw, offset)
	if err != nil {
		return err
	}
	at, err := x.place(parts)
	if err != nil {
		return err
	}
	if len(at.children) > 0 {
		return errors.New("it comes after what is in it, which tardev would leave out")
	}
	*at = *n
	return nil
}

// whiteout marks a directory opaque, or makes name the device 0:0 by which overlayfs knows a removed file.
func (x *tarIndex) whiteout(dir []string, name string) error {
	if name == ".wh..opq" {
		n, err := x.find(dir)
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
	n.size, n.offset, n.target = 0, 0, ""
	return nil
}

func (x *tarIndex) link(parts []string, target string) error {
	to, err := splitPath(target)
	if err != nil {
		return err
	}
	n, err := x.find(to)
	if err != nil || n.mode&typeMask != typeFile {
		return errors.Join(fmt.Errorf("hard link to %.200q, which is no file of this layer", target), err)
	}
	if len(parts) == 0 {
		return errors.New("hard link in place of the root")
	}
	dir, err := x.find(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	return dir.put(parts[len(parts)-1], n)
}

// find returns the node at a path that must exist.
func (x *tarIndex) find(parts []string) (*node, error) {
	n := x.root
	for i, p := range parts {
		if n = n.children[p]; n == nil {
			return nil, fmt.Errorf("%.200q has no entry of its own before what is in it", strings.Join(parts[:i+1], "/"))
		}
	}
	return n, nil
}

// place returns the node at a path, made if only its last part is missing.
func (x *tarIndex) place(parts []string) (*node, error) {
	if len(parts) == 0 {
		return x.root, nil
	}
	dir, err := x.find(parts[:len(parts)-1])
	if err != nil {
		return nil, err
	}
	last := parts[len(parts)-1]
	if n := dir.children[last]; n != nil {
		return n, nil
	}
	n := &node{}
	return n, dir.put(last, n)
}

func (n *node) put(name string, child *node) error {
	if n.mode&typeMask != typeDir {
		return errors.New("its parent is not a directory")
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[name] = child
	return nil
}

// newNode takes what tardev takes: names and sizes with their extensions, but owner, mode and time of the plain header.
func newNode(h *tar.Header, raw rawHeader, offset int64) (*node, error) {
	mode, err := raw.number(100, 8)
	if err != nil {
		return nil, err
	}
	owner, err1 := raw.number(108, 8)
	group, err2 := raw.number(116, 8)
	mtime, err3 := raw.number(136, 12)
	major, err4 := raw.number(329, 8)
	minor, err5 := raw.number(337, 8)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	n := &node{mode: uint16(mode) & permMask, owner: uint32(owner), group: uint32(group), mtime: mtime}
	switch h.Typeflag {
	case tar.TypeReg:
		n.mode |= typeFile
		n.size, n.offset = uint64(h.Size), uint64(offset)
	case tar.TypeDir:
		n.mode |= typeDir
	case tar.TypeFifo:
		n.mode |= typeFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.mode |= typeChar
		if h.Typeflag == tar.TypeBlock {
			n.mode = n.mode&^typeMask | typeBlock
		}
		n.offset = minor&0xffffffff | major<<32
	case tar.TypeSymlink:
		n.mode |= typeLink
		n.size, n.offset = uint64(len(h.Linkname)), uint64(offset)-sectorSize+linknameOffset
		if raw.linkname() != h.Linkname {
			n.target = h.Linkname
		}
	default:
		return nil, fmt.Errorf("its type %q cannot be shown by tarfs", h.Typeflag)
	}
	return n, nil
}

// splitPath is the clean path of an entry; no parts mean the root.
func splitPath(name string) ([]string, error) {
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			return nil, fmt.Errorf("path %.200q leads out of its directory", name)
		default:
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// writeTo writes the index that follows size bytes of tar: inodes, directory entries, targets of long links, names, and
// zeros up to the superblock, which is the last sector of a block of its own. Everything is little-endian and ordered as
// the tree is walked: breadth first, names in byte order.
func (x *tarIndex) writeTo(w io.Writer, size int64) error {
	nodes := x.number()
	offset := uint64(size) + inodeSize*uint64(len(nodes))
	for _, n := range nodes {
		if n.mode&typeMask == typeDir {
			n.offset, n.size = offset, direntSize*uint64(len(n.children))
			offset += n.size
		}
	}
	for _, n := range nodes {
		if n.target != "" {
			n.offset = offset
			offset += n.size
		}
	}
	var buf []byte
	for _, n := range nodes {
		buf = n.appendInode(buf)
	}
	nameOffset := offset
	var names bytes.Buffer
	for _, n := range nodes {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			buf = binary.LittleEndian.AppendUint64(buf, n.children[name].ino)
			buf = binary.LittleEndian.AppendUint64(buf, nameOffset+uint64(names.Len()))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(len(name)))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(n.children[name].mode>>typeShift))
			names.WriteString(name)
		}
	}
	for _, n := range nodes {
		buf = append(buf, n.target...)
	}
	buf = append(buf, names.Bytes()...)

	end := (size + int64(len(buf)) + BlockSize - 1) / BlockSize * BlockSize
	buf = append(buf, make([]byte, end+BlockSize-sectorSize-size-int64(len(buf)))...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(size))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(nodes)))
	buf = append(buf, make([]byte, sectorSize-16)...)
	_, err := w.Write(buf)
	return err
}

// number gives inode numbers in the order of the walk and returns the nodes in that order.
func (x *tarIndex) number() []*node {
	var nodes []*node
	reach := func(n *node) {
		if n.ino == 0 {
			nodes = append(nodes, n)
			n.ino = uint64(len(nodes))
		}
	}
	reach(x.root)
	for next := 0; next < len(nodes); next++ {
		for _, name := range slices.Sorted(maps.Keys(nodes[next].children)) {
			reach(nodes[next].children[name])
		}
	}
	return nodes
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

// number reads a numeric field: octal digits, or base 256 when the first bit is set. An empty field is 0.
func (r rawHeader) number(at, length int) (uint64, error) {
	field := r[at : at+length]
	if field[0]&0x80 != 0 {
		return binary.BigEndian.Uint64(field[length-8:]) &^ (1 << 63), nil
	}
	digits := strings.Trim(string(field), " \x00")
	if digits == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(digits, 8, 64)
	if err != nil {
		return 0, fmt.Errorf("numeric field at %d: %w", at, err)
	}
	return n, nil
}

func (r rawHeader) linkname() string {
	field := r[linknameOffset : linknameOffset+linknameSize]
	if end := bytes.IndexByte(field, 0); end >= 0 {
		field = field[:end]
	}
	return string(field)
}
