// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/internal/emulator/cri"
	"portcullis/internal/emulator/hostfs"
)

// source is where a volume is on the node.
type source struct {
	path     string // directory or file that is mounted
	device   string // a block device, "" for a file system
	image    string // an image volume
	readonly bool
}

// volume writes a volume of the pod and returns where it is.
func (k *Kubelet) volume(v corev1.Volume) (source, error) {
	switch s := v.VolumeSource; {
	case s.ConfigMap != nil, s.Secret != nil, s.DownwardAPI != nil, s.Projected != nil:
		return k.projected(v)
	case s.HostPath != nil:
		return k.hostPath(s.HostPath)
	case s.PersistentVolumeClaim != nil:
		claim := s.PersistentVolumeClaim
		return k.claim(claim.ClaimName, claim.ReadOnly), nil
	case s.Ephemeral != nil:
		return k.claim(k.pod.Name+"-"+v.Name, false), nil
	case s.CSI != nil:
		return k.directory("csi", v.Name, isTrue(s.CSI.ReadOnly), "mount"), nil
	case s.NFS != nil:
		return k.directory("nfs", v.Name, s.NFS.ReadOnly), nil
	case s.Image != nil:
		return source{image: s.Image.Reference, readonly: true}, nil
	case s.EmptyDir != nil:
		return k.emptyDir(v.Name, s.EmptyDir), nil
	case v.VolumeSource == corev1.VolumeSource{}:
		return k.emptyDir(v.Name, &corev1.EmptyDirVolumeSource{}), nil
	}
	return k.directory("plugin", v.Name, readonly(v.VolumeSource)), nil // a driver of some storage mounts it
}

// readonly is true for a volume of any driver that says so.
func readonly(v corev1.VolumeSource) bool {
	raw, err := json.Marshal(v)
	if err != nil {
		return false
	}
	var drivers map[string]struct{ ReadOnly bool }
	return json.Unmarshal(raw, &drivers) == nil && slices.ContainsFunc(slices.Collect(maps.Values(drivers)), func(d struct{ ReadOnly bool }) bool { return d.ReadOnly })
}

// directory makes the mount point of a volume of a plugin.
func (k *Kubelet) directory(plugin, name string, readonly bool, below ...string) source {
	at := path.Join(append([]string{k.dir("volumes", "kubernetes.io~"+plugin, name)}, below...)...)
	k.files[at] = hostfs.File{Mode: hostfs.Directory | 0o755}
	return source{path: at, readonly: readonly}
}

func (k *Kubelet) emptyDir(name string, v *corev1.EmptyDirVolumeSource) source {
	at := k.dir("volumes", "kubernetes.io~empty-dir", name)
	dir := hostfs.File{Mode: hostfs.Directory | 0o777}
	switch {
	case v.Medium == corev1.StorageMediumMemory:
		dir.FileSystem, dir.Mode = "tmpfs", dir.Mode|0o1000
	case strings.HasPrefix(string(v.Medium), string(corev1.StorageMediumHugePages)):
		dir.FileSystem = "hugetlbfs"
		dir.Data = []byte(strings.TrimPrefix(strings.TrimPrefix(string(v.Medium), string(corev1.StorageMediumHugePages)), "-"))
	}
	if group := k.pod.Spec.SecurityContext.FSGroup; group != nil {
		dir.GID = uint32(*group)
		dir.Mode |= 0o2000
	}
	k.files[at] = dir
	return source{path: at}
}

// hostPath is the path itself. What may be made is made.
func (k *Kubelet) hostPath(v *corev1.HostPathVolumeSource) (source, error) {
	at := path.Clean(v.Path)
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	_, file, found := k.files.Stat(at)
	switch {
	case !found && (kind == corev1.HostPathDirectoryOrCreate || kind == corev1.HostPathUnset):
		k.files[at] = hostfs.File{Mode: hostfs.Directory | 0o755}
	case !found && kind == corev1.HostPathFileOrCreate:
		k.files[at] = hostfs.File{Mode: hostfs.Regular | 0o644}
	case !found:
		k.files[at] = hostfs.File{Mode: expected(kind)}
	case expected(kind) != 0 && expected(kind)&hostfs.TypeMask != file.Type():
		return source{}, fmt.Errorf("%w: %s of the node is no %s", ErrRefused, at, kind)
	}
	return source{path: at}, nil
}

// expected is what the node has where the manifest says so and nobody else does.
func expected(kind corev1.HostPathType) uint32 {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return hostfs.Directory | 0o755
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return hostfs.Regular | 0o644
	case corev1.HostPathSocket:
		return hostfs.Socket | 0o755
	case corev1.HostPathCharDev:
		return hostfs.CharDevice | 0o666
	case corev1.HostPathBlockDev:
		return hostfs.BlockDevice | 0o660
	}
	return 0
}

// claim is the volume of a claim, from a driver of the Container Storage Interface.
func (k *Kubelet) claim(name string, readonly bool) source {
	volume := "pvc-" + k.node.Random.UUID()
	claim, _ := k.pod.Objects.Claims.In(k.pod.Namespace, name)
	if claim != nil && claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		return source{device: k.blockDevice(volume), readonly: readonly}
	}
	return k.directory("csi", volume, readonly, "mount")
}

func (k *Kubelet) blockDevice(volume string) string {
	at := "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/" + volume + "/" + string(k.pod.UID)
	k.files[at] = hostfs.File{Mode: hostfs.BlockDevice | 0o660}
	return at
}

// devices are the raw block volumes of a container.
func (k *Kubelet) devices(c *corev1.Container) []cri.Device {
	var out []cri.Device
	for _, d := range c.VolumeDevices {
		s := k.sources[d.Name]
		if s.device == "" { // a claim that is not in the manifest has the mode that its use asks for
			s.device = k.blockDevice("pvc-" + k.node.Random.UUID())
			k.sources[d.Name] = s
		}
		permissions := "mrw"
		if s.readonly {
			permissions = "r"
		}
		out = append(out, cri.Device{ContainerPath: d.DevicePath, HostPath: s.device, Permissions: permissions})
	}
	return out
}

// vfio is how many devices of the node the container gets passed through.
func (k *Kubelet) vfio(c *corev1.Container) (n int) {
	for _, name := range k.node.VFIO {
		amount := c.Resources.Limits[corev1.ResourceName(name)]
		n += int(amount.Value())
	}
	return n
}

// mounts are the volumes of a container, then /etc/hosts and the termination log.
func (k *Kubelet) mounts(c *corev1.Container, values map[string]string) ([]cri.Mount, error) {
	var out []cri.Mount
	hasHosts := false
	for i, m := range c.VolumeMounts {
		s, ok := k.sources[m.Name]
		if !ok {
			return nil, fmt.Errorf("%w: container %s mounts no volume %s", ErrRefused, c.Name, m.Name)
		}
		at := m.MountPath
		if !path.IsAbs(at) {
			at = path.Join("/", at)
		}
		hasHosts = hasHosts || at == "/etc/hosts"
		mount := cri.Mount{ContainerPath: at, HostPath: s.path, Image: s.image, Readonly: m.ReadOnly || s.readonly, Propagation: propagation(m)}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, values)
		}
		if sub != "" && s.image == "" {
			mount.HostPath = k.subPath(s, sub, m.Name, c.Name, i)
		}
		out = append(out, mount)
	}
	if !hasHosts {
		out = append(out, cri.Mount{ContainerPath: "/etc/hosts", HostPath: k.hostsPath(), Propagation: cri.Private})
	}
	log := k.dir("containers", c.Name, k.node.Random.Hex(8))
	k.files[log] = hostfs.File{Mode: hostfs.Regular | 0o666}
	return append(out, cri.Mount{ContainerPath: c.TerminationMessagePath, HostPath: log, Propagation: cri.Private}), nil
}

func propagation(m corev1.VolumeMount) cri.Propagation {
	if m.MountPropagation != nil {
		switch *m.MountPropagation {
		case corev1.MountPropagationHostToContainer:
			return cri.HostToContainer
		case corev1.MountPropagationBidirectional:
			return cri.Bidirectional
		}
	}
	return cri.Private
}

// subPath is where the kubelet binds a part of a volume, which it makes as a directory where the volume does not have it.
func (k *Kubelet) subPath(s source, sub, volume, container string, index int) string {
	at := k.dir("volume-subpaths", volume, container, fmt.Sprint(index))
	from, file, found := k.files.Stat(path.Join(s.path, sub))
	if !found {
		file = hostfs.File{Mode: hostfs.Directory | k.files[s.path].Mode&0o777}
	}
	k.files[at] = file
	for _, p := range slices.Clone(k.files.Walk(from)) {
		k.files[at+strings.TrimPrefix(p, from)] = k.files[p]
	}
	return at
}
