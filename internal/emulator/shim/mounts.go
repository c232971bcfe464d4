// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/emulator/hostfs"
)

type message = proto.Message

// pull adds the storage that makes the guest pull the container's image.
func (c *container) pull() {
	source := c.spec.Annotations[criKey+"image-name"]
	if c.isSandbox() {
		source = "pause"
	}
	metadata := map[string]any{}
	if c.shim.Config.PullMetadata {
		metadata["metadata"] = c.create.OCI.Annotations
	}
	raw, err := json.Marshal(metadata)
	if err != nil {
		panic(err) // strings encode
	}
	c.create.Storages = append(c.create.Storages, &agentpb.Storage{
		Driver: "image_guest_pull", DriverOptions: []string{"image_guest_pull=" + string(raw)},
		Source: source, Fstype: "overlay", MountPoint: c.root(),
	})
}

// mounts finds for each mount of the host what the guest has in its place.
func (c *container) mounts() {
	var watched, ephemeral, local []*agentpb.Storage
	inOrder := c.shim.Config.Kind == RuntimeRS
	for _, m := range c.spec.Mounts {
		out := &agentpb.Mount{Destination: m.Destination, Source: m.Source, Type: m.Type, Options: m.Options}
		if m.Type == "bind" {
			storage, keep := c.bind(m, out)
			switch {
			case !keep:
				continue
			case storage == nil:
			case inOrder:
				c.create.Storages = append(c.create.Storages, storage)
			case storage.Driver == "local":
				local = append(local, storage)
			case storage.Driver == "watchable-bind":
				watched = append(watched, storage)
			default:
				ephemeral = append(ephemeral, storage)
			}
		} else if m.Destination == "/dev/shm" {
			shm(out)
		}
		c.create.OCI.Mounts = append(c.create.OCI.Mounts, out)
	}
	for _, list := range [][]*agentpb.Storage{watched, ephemeral, local} {
		c.create.Storages = append(c.create.Storages, list...)
	}
}

// shm gives the container the memory that the sandbox's containers share.
func shm(out *agentpb.Mount) {
	out.Source, out.Type, out.Options = shmDir, "bind", []string{"rbind"}
}

// bind changes a bind mount of a path of the host, and returns the storage that it
// needs. It returns false for a mount that the guest cannot have.
func (c *container) bind(m specs.Mount, out *agentpb.Mount) (*agentpb.Storage, bool) {
	file, base := c.shim.Files[m.Source], path.Base(m.Source)
	emptyDir := strings.Contains(m.Source, "/kubernetes.io~empty-dir/")
	switch {
	case m.Destination == "/dev/shm" && !emptyDir:
		shm(out)
		return nil, true
	case systemPath(m.Source):
		return nil, true
	case emptyDir && file.FileSystem != "":
		out.Source = ephemeralDir + base
		return c.memory(file, out.Source), true
	case emptyDir && (c.shim.Config.EmptyDirs == EncryptedBlocks || c.shim.Config.EmptyDirs == PlainBlocks):
		return c.disk(m.Source, out), true
	case emptyDir && c.shim.Config.EmptyDirs == GuestDirs:
		out.Source, out.Type = c.localDir(base), "local"
		return &agentpb.Storage{
			Driver: "local", Source: "local", Fstype: "local", MountPoint: out.Source, Options: append([]string{"mode=0777"}, group(file)...),
		}, true
	case emptyDir && c.shim.Config.EmptyDirs == CopiedDirs:
		c.copyOnce(m.Source, out)
		return nil, true
	case c.shim.Config.SharedFiles:
		return c.share(m, out), true
	case file.Type() == hostfs.Socket:
		return nil, false
	}
	out.Source = sharedDir + c.shim.guestName(c.id, m.Source, path.Base(m.Destination))
	c.copy(m.Source, out.Source)
	return nil, true
}

// copyOnce copies a volume that all containers of the pod share.
func (c *container) copyOnce(source string, out *agentpb.Mount) {
	shared := c.shim.shared
	if shared[source] == "" {
		shared[source] = fmt.Sprintf("%ssandbox-%s-%s", sharedDir, c.shim.Random.Hex(16), path.Base(source))
		c.copy(source, shared[source])
	}
	out.Source = shared[source]
}

// systemPath is true for what every guest has of its own.
func systemPath(source string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if source == dir || strings.HasPrefix(source, dir+"/") {
			return true
		}
	}
	return false
}

func group(dir hostfs.File) []string {
	if dir.GID == 0 {
		return nil
	}
	return []string{fmt.Sprintf("fsgid=%d", dir.GID)}
}

// memory is a volume in the guest's memory; of huge pages it has as many as the container may use of their size, and no group.
func (c *container) memory(dir hostfs.File, at string) *agentpb.Storage {
	if dir.FileSystem != "hugetlbfs" {
		return &agentpb.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: at, Options: group(dir)}
	}
	out := &agentpb.Storage{Driver: "ephemeral", Source: "nodev", Fstype: dir.FileSystem, MountPoint: at}
	for _, h := range c.spec.Linux.Resources.HugepageLimits {
		if size := strings.TrimSuffix(string(dir.Data), "i"); size == "" || size+"B" == h.Pagesize {
			out.Options = []string{fmt.Sprintf("pagesize=%d,size=%d", pageBytes(h.Pagesize), h.Limit)}
		}
	}
	return out
}

// pageBytes reads a size of pages as Linux names it.
func pageBytes(size string) int {
	n, _ := strconv.Atoi(strings.TrimRight(size, "KMGB"))
	for _, unit := range "KMG" {
		if n <<= 10; strings.ContainsRune(size, unit) {
			break
		}
	}
	return n
}

// disk is a volume on a disk of its own, which all containers of the pod share.
func (c *container) disk(source string, out *agentpb.Mount) *agentpb.Storage {
	disks := c.shim.disks
	if disks[source] == "" {
		disks[source] = fmt.Sprintf("%02x/00", len(disks)+2)
	}
	out.Source = kataDir + "sandbox/storage/" + base64.URLEncoding.EncodeToString([]byte(disks[source]))
	storage := &agentpb.Storage{
		Driver: "blk", Source: disks[source], Fstype: "ext4", MountPoint: out.Source, Shared: true,
		DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"},
	}
	if gid := c.shim.Files[source].GID; gid != 0 {
		storage.FsGroup = &agentpb.FSGroup{GroupId: gid}
	}
	if c.shim.Config.EmptyDirs == PlainBlocks {
		storage.DriverOptions, storage.Options = []string{"create_filesystem"}, []string{"discard"}
	}
	return storage
}

func (c *container) localDir(name string) string {
	dir := sharedDir
	if c.shim.Config.Kind == RuntimeRS {
		dir = passthrough
	}
	return dir + c.shim.sandboxID + "/rootfs/local/" + name
}

// share lets the guest see a path of the host over virtio-fs. Small volumes of
// ConfigMaps and Secrets are copied in the guest whenever they change: runtime-rs says so once for all
// mounts of one in the pod.
func (c *container) share(m specs.Mount, out *agentpb.Mount) *agentpb.Storage {
	dir := sharedDir
	if c.shim.Config.Kind == RuntimeRS {
		dir = passthrough
	}
	again := c.shim.shared[m.Source] != ""
	name := c.shim.guestName(c.id, m.Source, path.Base(m.Destination))
	out.Source = dir + name
	if !c.watchable(m.Source) {
		return nil
	}
	out.Source = dir + "watchable/" + name
	if again {
		return nil
	}
	return &agentpb.Storage{Driver: "watchable-bind", Source: dir + name, Fstype: "bind", MountPoint: out.Source, Options: m.Options}
}

// mostWatched is how many files a watched volume may have.
const mostWatched = 8

func (c *container) watchable(source string) bool {
	plugin := strings.Contains(source, "/kubernetes.io~configmap/") || strings.Contains(source, "/kubernetes.io~secret/")
	return plugin && c.count(source) <= mostWatched
}

// count counts files and links below a directory. Only runtime-rs follows links to directories.
func (c *container) count(dir string) (n int) {
	for _, name := range c.shim.Files.Entries(dir) {
		at := path.Join(dir, name)
		real, file, _ := c.shim.Files.Stat(at)
		isLink := c.shim.Files[at].Type() == hostfs.Symlink
		if file.Type() == hostfs.Directory && (!isLink || c.shim.Config.Kind == RuntimeRS) {
			n += c.count(real)
		} else {
			n++
		}
	}
	return n
}
