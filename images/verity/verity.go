// SPDX-License-Identifier: Apache-2.0

// Package verity computes dm-verity hash trees and the roots of image layers.
//
// The format is dm-verity's version 1 with sha256 and blocks of 4096 bytes for data and hashes (kernel:
// Documentation/admin-guide/device-mapper/verity.rst), the same that "veritysetup format" writes. Each block is hashed
// with the salt before it; 128 hashes fill a hash block, the rest of the last block of a level is zero, and the levels
// are stored from the top, which is one block, down.
//
// The tree is built here and not by github.com/containerd/go-dmverity, which wants data and tree in named files, so that a
// layer would have to be unpacked to disk first, and which writes each hash by a system call of its own and uses one core:
// on 1 GiB it has 0.7 to 0.8 of veritysetup's speed (BenchmarkGibibyte). That library makes the superblock, and checks
// this tree in tests.
package verity

import (
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
)

const (
	// BlockSize is the size of data and hash blocks in bytes.
	BlockSize = 4096

	// sectorSize is device mapper's unit of length in bytes.
	sectorSize = 512

	digestSize = 32
	fanout     = BlockSize / digestSize

	// maxSalt is the room for the salt in a superblock.
	maxSalt = 256
)

// Digest is the root of a tree: it stands for every byte of the data.
type Digest [digestSize]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Options choose a tree. The zero value is what tardev uses for layers.
type Options struct {
	Salt    []byte // put before each block; nil means 32 zero bytes, empty means none; at most 256 bytes
	Workers int    // goroutines that hash; 0 means one per usable core. Each takes about 1 MiB

	// Left receives, from LayerRoot alone, each entry of a layer that tardev does not show, in words. It may be nil.
	Left func(about string)
}

func (o Options) withDefaults() (Options, error) {
	if o.Salt == nil {
		o.Salt = make([]byte, digestSize)
	}
	if len(o.Salt) > maxSalt {
		return o, fmt.Errorf("salt of %d bytes, want at most %d", len(o.Salt), maxSalt)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return o, nil
}

// SizeError says that data cannot be covered by a tree because it does not consist of whole blocks.
type SizeError struct{ Size int64 }

func (e *SizeError) Error() string {
	return fmt.Sprintf("size of %d bytes is not a positive multiple of the %d-byte block", e.Size, BlockSize)
}

// Tree describes a hash tree.
type Tree struct {
	Root       Digest
	DataBlocks int64
	Salt       []byte
}

// Size is the length of the stored tree in bytes; 0 for a single data block, whose hash is the root itself.
func (t Tree) Size() int64 {
	var n int64
	for _, blocks := range levelSizes(t.DataBlocks) {
		n += blocks
	}
	return n * BlockSize
}

// Table is the device-mapper line that opens data with the tree that begins at block hashStart of the device hash. Where
// the tree follows the data on the same device, hashStart is the number of data blocks, and one more with a superblock.
func (t Tree) Table(data, hash string, hashStart int64) string {
	salt := "-"
	if len(t.Salt) > 0 {
		salt = hex.EncodeToString(t.Salt)
	}
	return fmt.Sprintf("0 %d verity 1 %s %s %d %d %d %d sha256 %s %s",
		t.DataBlocks*(BlockSize/sectorSize), data, hash, BlockSize, BlockSize, t.DataBlocks, hashStart, t.Root, salt)
}

// Root computes the root over the size bytes that r holds, keeping nothing of the tree. It reads r to its end: data that
// is shorter or longer than size is an error, and so is a size that is not a positive multiple of BlockSize ([SizeError]).
func Root(r io.Reader, size int64, o Options) (Digest, error) {
	t, err := format(r, size, nil, o)
	if err != nil {
		return Digest{}, fmt.Errorf("computing dm-verity root: %w", err)
	}
	return t.Root, nil
}

// Format is [Root] that also writes the tree, without superblock, to the start of w. To append the tree to something,
// give an io.OffsetWriter.
func Format(r io.Reader, size int64, w io.WriterAt, o Options) (Tree, error) {
	t, err := format(r, size, w, o)
	if err != nil {
		return Tree{}, fmt.Errorf("making dm-verity tree: %w", err)
	}
	return t, nil
}

func format(r io.Reader, size int64, w io.WriterAt, o Options) (Tree, error) {
	if size <= 0 || size%BlockSize != 0 {
		return Tree{}, &SizeError{Size: size}
	}
	o, err := o.withDefaults()
	if err != nil {
		return Tree{}, err
	}
	blocks := size / BlockSize
	b := newBuilder(o, placer(w, blocks))
	if err := b.readFrom(r, size); err != nil {
		b.abort()
		return Tree{}, err
	}
	root, err := b.finish()
	return Tree{Root: root, DataBlocks: blocks, Salt: o.Salt}, err
}

// levelSizes are the blocks in each level of hashes, lowest first. There is none over a single data block.
func levelSizes(dataBlocks int64) []int64 {
	var sizes []int64
	for n := dataBlocks; n > 1; {
		n = (n + fanout - 1) / fanout
		sizes = append(sizes, n)
	}
	return sizes
}

// placer writes hash blocks where they belong in w, or drops them when w is nil.
func placer(w io.WriterAt, dataBlocks int64) emitFunc {
	if w == nil {
		return func(int, int64, []byte) error { return nil }
	}
	sizes := levelSizes(dataBlocks)
	starts := make([]int64, len(sizes))
	for n := len(sizes) - 2; n >= 0; n-- {
		starts[n] = starts[n+1] + sizes[n+1]
	}
	return func(level int, index int64, block []byte) error {
		_, err := w.WriteAt(block, (starts[level]+index)*BlockSize)
		return err
	}
}
