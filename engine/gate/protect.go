package gate

import (
	"fmt"
	"path"
	"strings"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

// Protected are the paths of the guest that no request may name, whatever the policy says: what policyd is made of, what it
// is configured by, and the devices that bind it to the hardware. A trailing * stands for any rest of a name.
var Protected = []string{
	"/run/portcullis",
	"/etc/portcullis",
	"/etc/kata-opa",
	"/dev/tpm*",
	"/dev/sev-guest",
	"/dev/tdx_guest",
}

// protected checks requests for such paths.
type protected []string

// newProtected adds paths, such as the daemon's binary and logs, to those that are always protected.
func newProtected(more []string) protected {
	var p protected
	for _, name := range append(append([]string{}, Protected...), more...) {
		if name != "" {
			p = append(p, path.Clean(name))
		}
	}
	return p
}

// ProtectedPathError says which field of a request names a protected path.
type ProtectedPathError struct{ Field, Path string }

func (e *ProtectedPathError) Error() string {
	return fmt.Sprintf("%s names %s, which belongs to the policy gate", e.Field, e.Path)
}

// check refuses a request in which a path to be mounted, written or handed to a container is a protected one, lies below one
// or holds one. Paths inside a container are not concerned.
func (p protected) check(request any) error {
	switch r := request.(type) {
	case *agentpb.CreateSandboxRequest:
		return p.storages(r.GetStorages())
	case *agentpb.CreateContainerRequest:
		return p.container(r)
	case *agentpb.UpdateEphemeralMountsRequest:
		return p.storages(r.GetStorages())
	case *agentpb.CopyFileRequest:
		return p.file(r)
	case *agentpb.AddSwapPathRequest:
		return p.path("path", r.GetPath())
	case *agentpb.VolumeStatsRequest:
		return p.path("volume_guest_path", r.GetVolumeGuestPath())
	case *agentpb.ResizeVolumeRequest:
		return p.path("volume_guest_path", r.GetVolumeGuestPath())
	}
	return nil
}

func (p protected) container(r *agentpb.CreateContainerRequest) error {
	if err := p.storages(r.GetStorages()); err != nil {
		return err
	}
	for i, d := range r.GetDevices() {
		field := fmt.Sprintf("devices[%d]", i)
		if err := p.paths(field, append([]string{d.GetVmPath(), d.GetContainerPath()}, d.GetOptions()...)); err != nil {
			return err
		}
	}
	for i, m := range r.GetSharedMounts() {
		if err := p.path(fmt.Sprintf("shared_mounts[%d].src_path", i), m.GetSrcPath()); err != nil {
			return err
		}
	}
	spec := r.GetOCI()
	for i, m := range spec.GetMounts() {
		field := fmt.Sprintf("OCI.Mounts[%d]", i)
		if err := p.paths(field, append([]string{m.GetSource()}, m.GetOptions()...)); err != nil {
			return err
		}
	}
	for i, d := range spec.GetLinux().GetDevices() {
		if err := p.path(fmt.Sprintf("OCI.Linux.Devices[%d].Path", i), d.GetPath()); err != nil {
			return err
		}
	}
	return p.path("OCI.Root.Path", spec.GetRoot().GetPath())
}

func (p protected) storages(list []*agentpb.Storage) error {
	for i, s := range list {
		named := append([]string{s.GetSource(), s.GetMountPoint()}, s.GetOptions()...)
		if err := p.paths(fmt.Sprintf("storages[%d]", i), append(named, s.GetDriverOptions()...)); err != nil {
			return err
		}
	}
	return nil
}

// fileTypeMask and symlink are S_IFMT and S_IFLNK of stat(2).
const (
	fileTypeMask = 0o170000
	symlink      = 0o120000
)

func (p protected) file(r *agentpb.CopyFileRequest) error {
	if err := agentproto.CheckFileMode(r.GetFileMode()); err != nil {
		return err
	}
	if err := p.path("path", r.GetPath()); err != nil {
		return err
	}
	if r.GetFileMode()&fileTypeMask != symlink {
		return nil
	}
	target := string(r.GetData())
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(r.GetPath()), target)
	}
	return p.path("symlink target", target)
}

// paths checks each value, and each absolute path that an option such as lowerdir=/a:/b holds.
func (p protected) paths(field string, values []string) error {
	for _, v := range values {
		for _, part := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune("=:,;\x00", r) }) {
			if err := p.path(field, part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p protected) path(field, name string) error {
	if !path.IsAbs(name) {
		return nil
	}
	name = path.Clean(name)
	for _, guarded := range p {
		if related(name, guarded) {
			return &ProtectedPathError{Field: field, Path: strings.TrimSuffix(guarded, "*")}
		}
	}
	return nil
}

// related reports whether name is the guarded path, lies below it, or is a directory that holds it.
func related(name, guarded string) bool {
	if stem, ok := strings.CutSuffix(guarded, "*"); ok {
		return strings.HasPrefix(name, stem) || holds(name, stem)
	}
	return name == guarded || holds(guarded, name) || holds(name, guarded)
}

// holds reports whether dir holds name, both clean.
func holds(dir, name string) bool {
	return dir == "/" || strings.HasPrefix(name, dir+"/")
}
