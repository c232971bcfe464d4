// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"portcullis/internal/wait"
)

// diskName is a whole virtio-blk or SCSI disk, the two that the runtime attaches initdata as.
var diskName = regexp.MustCompile(`^(vd|sd)[a-z]{1,3}$`)

// lookedAt is what the agent looks for initdata on: parts of disks as well, which the host makes by what it writes to a disk.
var lookedAt = regexp.MustCompile(`^(vd|sd)[a-z]+[0-9]*$`)

// Disks is where disks are looked for. The zero value is the running guest.
type Disks struct {
	// Root is put before every path of /dev and /sys. "" means "/".
	Root string
	// Open opens a disk for reading by its path, Root not included. Nil means the
	// block device below Root, never through a symbolic link.
	Open func(path string) (io.ReadCloser, error)
	// Write writes value to a file of sysfs, path without Root. Nil means the file below Root.
	Write func(path, value string) error
}

// Disk is a disk that carried initdata.
type Disk struct {
	Name     string // "vda", "sdb"
	Document *Document
}

// Find reads the one disk that carries initdata. Each disk is opened once and each byte read once, so that the document is what
// it was even when the host changes the disk. No such disk is ErrNoDisk, two are ErrInvalid, as is a part of a disk that carries
// it, one that cannot be read, whichever it is, ErrRead. ctx bounds the whole.
func (d Disks) Find(ctx context.Context) (*Disk, error) {
	disk, err := wait.Result(ctx, d.find)
	if err == nil {
		return disk, nil
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ErrRead, err)
	}
	return nil, fmt.Errorf("find initdata: %w", err)
}

// candidates are the names of what the agent looks for initdata on.
func (d Disks) candidates() ([]string, error) {
	entries, err := os.ReadDir(d.path("/dev"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRead, err)
	}
	var names []string
	for _, entry := range entries {
		if lookedAt.MatchString(entry.Name()) && !entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func (d Disks) find() (*Disk, error) {
	names, err := d.candidates()
	if err != nil {
		return nil, err
	}
	var found *Disk
	for _, name := range names {
		switch doc, err := d.read(name); {
		case errors.Is(err, ErrNoDisk):
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case !diskName.MatchString(name):
			return nil, fmt.Errorf("%w: %s carries it, which is no whole disk", ErrInvalid, name)
		case found != nil:
			return nil, fmt.Errorf("%w: both %s and %s carry it", ErrInvalid, found.Name, name)
		default:
			found = &Disk{Name: name, Document: doc}
		}
	}
	if found == nil {
		return nil, ErrNoDisk
	}
	return found, nil
}

func (d Disks) open(name string) (io.ReadCloser, error) {
	if d.Open != nil {
		return d.Open("/dev/" + name)
	}
	return openDisk(d.path("/dev/" + name))
}

func (d Disks) read(name string) (*Document, error) {
	r, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRead, err)
	}
	defer r.Close()
	return ReadImage(r)
}

// Detach takes the disk from its driver, so that nobody in the guest can read it
// again. It returns ErrAttached unless the disk is then gone. ctx bounds it.
func (d Disks) Detach(ctx context.Context, name string) error {
	_, err := wait.Result(ctx, func() (struct{}, error) { return struct{}{}, d.detach(name) })
	if err != nil {
		return fmt.Errorf("detach %.16q: %w: %w", name, ErrAttached, err)
	}
	return nil
}

func (d Disks) detach(name string) error {
	if !diskName.MatchString(name) {
		return errors.New("not the name of a disk")
	}
	block := "/sys/block/" + name
	// The bus address, "virtio0" or "0:0:0:0", is what the driver knows it by.
	device, err := os.Readlink(d.path(block + "/device"))
	if err != nil {
		return err
	}
	write := d.Write
	if write == nil {
		write = func(path, value string) error { return writeAttribute(d.path(path), value) }
	}
	if err := write(block+"/device/driver/unbind", filepath.Base(device)); err != nil {
		return err
	}
	for _, path := range []string{block, "/dev/" + name} {
		if _, err := os.Lstat(d.path(path)); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s is still there", path), err)
		}
	}
	return nil
}

// writeAttribute writes to a sysfs file, which must exist.
func writeAttribute(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func (d Disks) path(name string) string { return filepath.Join("/", d.Root, name) }
