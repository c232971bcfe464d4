// SPDX-License-Identifier: Apache-2.0

package hostdatatest

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"portcullis/hostdata/initdata"
)

// Disk is a disk of the guest.
type Disk struct {
	Name     string // "vda" on virtio-blk, "sda" on SCSI
	Contents []byte
	ReadErr  error           // what reading ends with instead of the end
	Hang     <-chan struct{} // when not nil, reads wait for it
	Stuck    bool            // the driver does not let go of it
}

// Disks writes disks below root, a directory, and returns them as package initdata looks for them. The disk's driver lets go of
// it as the kernel's does: its node and its directory in /sys/block are gone when the write returns.
func Disks(root string, disks ...Disk) (initdata.Disks, error) {
	byPath := make(map[string]Disk)
	byUnbind := make(map[string]Disk)
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		return initdata.Disks{}, fmt.Errorf("make disks: %w", err)
	}
	for i, disk := range disks {
		address, driver := fmt.Sprintf("virtio%d", i), "virtio_blk"
		if disk.Name[0] == 's' {
			address, driver = fmt.Sprintf("0:0:%d:0", i), "sd"
		}
		if err := addDisk(root, disk, address, driver); err != nil {
			return initdata.Disks{}, err
		}
		byPath["/dev/"+disk.Name] = disk
		byUnbind["/sys/block/"+disk.Name+"/device/driver/unbind "+address] = disk
	}
	return initdata.Disks{
		Root: root,
		Open: func(path string) (io.ReadCloser, error) { return openDisk(root, path, byPath) },
		Write: func(path, value string) error {
			disk, ok := byUnbind[path+" "+value]
			if !ok {
				return syscall.ENODEV
			}
			if disk.Stuck {
				return nil
			}
			return removeDisk(root, disk.Name)
		},
	}, nil
}

func addDisk(root string, disk Disk, address, driver string) error {
	device := path.Join("/sys/devices/pci0000:00", address)
	if err := writeFile(filepath.Join(root, "dev", disk.Name), string(disk.Contents)); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(root, "sys/bus/drivers", driver, "unbind"), ""); err != nil {
		return err
	}
	for _, dir := range []string{device, "/sys/block/" + disk.Name} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	links := map[string]string{
		"/sys/block/" + disk.Name + "/device": filepath.Join(root, device),
		device + "/driver":                    filepath.Join(root, "sys/bus/drivers", driver),
	}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	return nil
}

func removeDisk(root, name string) error {
	if err := os.Remove(filepath.Join(root, "dev", name)); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(root, "sys/block", name))
}

func openDisk(root, path string, disks map[string]Disk) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	return &diskReader{File: f, disk: disks[path]}, nil
}

type diskReader struct {
	*os.File
	disk Disk
}

func (r *diskReader) Read(p []byte) (int, error) {
	if r.disk.Hang != nil {
		<-r.disk.Hang
	}
	n, err := r.File.Read(p)
	if err == io.EOF && r.disk.ReadErr != nil {
		err = r.disk.ReadErr
	}
	return n, err
}
