// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"portcullis/images"
	"portcullis/rules/policydata"
)

// Keys of settings' volumes.
const (
	volumeMemory = "memory"
	volumeShared = "shared"
	volumeConfig = "config"
)

// mounts sets the mounts and storages of a container: the platform's, then the volumes that the image declares, then the
// manifest's, each in place of what was at its destination before.
func (b *builder) mounts(c placed, config images.Config, vars variables, out *policydata.Container) error {
	b.platformMounts(b.settings().Generate.Container.Mounts, out)
	b.terminationLog(c, out)
	b.accountToken(out)
	if err := b.imageVolumes(c, config.Volumes, out); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, vm := range c.VolumeMounts {
		field := fmt.Sprintf("%s.volumeMounts[%d]", c.field, i)
		if !path.IsAbs(vm.MountPath) {
			vm.MountPath = "/" + vm.MountPath
		}
		if seen[path.Clean(vm.MountPath)] {
			return b.pod.fault(field+".mountPath", fmt.Sprintf("is %s for a second time", vm.MountPath))
		}
		seen[path.Clean(vm.MountPath)] = true
		if err := b.mount(c, vm, field, vars, out); err != nil {
			return err
		}
	}
	if err := b.checkNesting(c, out); err != nil {
		return err
	}
	return b.devices(c, out)
}

// platformMounts adds the mounts of a platform's template.
func (b *builder) platformMounts(mounts map[string]policydata.Mount, out *policydata.Container) {
	rw, privilegedRW := "rw", "ro"
	if out.ReadonlyRoot {
		rw = "ro"
	}
	if out.Capabilities == privilegedSet || out.Type == policydata.TypeSandbox && b.privileged() {
		privilegedRW = "rw"
	}
	fill := strings.NewReplacer("$(rw)", rw, "$(privileged-rw)", privilegedRW)
	for destination, m := range mounts {
		m.Options = slices.Clone(m.Options)
		if i := slices.Index(m.Options, "$(privileged-rw)"); i >= 0 && out.Type == policydata.TypeSandbox && privilegedRW == "rw" {
			// containerd before 2.0.4 leaves it read-only.
			m.Options = slices.Delete(m.Options, i, i+1)
			m.ExtraOptions = append(slices.Clone(m.ExtraOptions), "ro", "rw")
		}
		for i := range m.Options {
			m.Options[i] = fill.Replace(m.Options[i])
		}
		put(&out.Mounts, destination, m)
	}
}

// Destinations of mounts that fields of a container change.
const (
	terminationLog = "/dev/termination-log"
	accountToken   = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// terminationLog moves the termination log to where the manifest wants it.
func (b *builder) terminationLog(c placed, out *policydata.Container) {
	m, ok := out.Mounts[terminationLog]
	if to := c.TerminationMessagePath; ok && to != "" && to != terminationLog {
		delete(out.Mounts, terminationLog)
		m.Source = path.Base(to)
		out.Mounts[to] = m
	}
}

// accountToken drops the service account's token where the pod refuses it, and requires it where the pod asks for it.
func (b *builder) accountToken(out *policydata.Container) {
	m, ok := out.Mounts[accountToken]
	automount := b.pod.owner.spec.AutomountServiceAccountToken
	if !ok || automount == nil {
		return
	}
	m.MayBeMissing = false
	out.Mounts[accountToken] = m
	if !*automount {
		delete(out.Mounts, accountToken)
	}
}

// place puts a mount at a destination, in place of what the runtime, the platform or the image mounts there. Over /dev it
// also takes the place of what the runtime itself mounts below.
func (b *builder) place(out *policydata.Container, destination string, m policydata.Mount) {
	clean := path.Clean(destination)
	covered := func(at string) bool { return at == clean || clean == "/dev" && strings.HasPrefix(at, "/dev/") }
	base := b.policy.Common.Mounts[out.BaseMounts]
	left := slices.DeleteFunc(slices.Clone(base), func(m policydata.ExactMount) bool { return covered(path.Clean(m.Destination)) })
	if len(left) < len(base) {
		out.BaseMounts += "-" + strings.ReplaceAll(strings.Trim(clean, "/"), "/", "-")
		b.policy.Common.Mounts[out.BaseMounts] = left
	}
	maps.DeleteFunc(out.Mounts, func(other string, _ policydata.Mount) bool { return path.Clean(other) == clean })
	put(&out.Mounts, destination, m)
}

// shape returns how a kind of volume appears, filled in.
func (b *builder) shape(kind, name, destination string) shaped {
	v := b.settings().Generate.Volumes[kind]
	fill := strings.NewReplacer("$(name)", name, "$(basename)", path.Base(destination))
	m := v.Mount
	m.Source, m.Options = fill.Replace(m.Source), slices.Clone(m.Options)
	if v.Storage == nil {
		return shaped{m, nil}
	}
	s := *v.Storage
	s.MountPoint, s.Source = fill.Replace(s.MountPoint), fill.Replace(s.Source)
	s.Options, s.DriverOptions = slices.Clone(s.Options), slices.Clone(s.DriverOptions)
	return shaped{m, &s}
}

// shaped is a volume as the agent sees it.
type shaped struct {
	Mount   policydata.Mount
	Storage *policydata.Storage
}

// mount adds one volume mount.
func (b *builder) mount(c placed, vm corev1.VolumeMount, field string, vars variables, out *policydata.Container) error {
	volume, ok := b.volumes[vm.Name]
	if !ok {
		return b.pod.fault(field+".name", fmt.Sprintf("is %s, which is no volume of the pod", vm.Name))
	}
	if err := b.subPath(vm, field, vars); err != nil {
		return err
	}
	if path.Clean(vm.MountPath) == "/dev/shm" && volume.EmptyDir == nil {
		b.warn(field+".name", "mounts "+vm.Name+" at /dev/shm, where Kata puts the memory that the pod's containers share in its place")
		return nil // the platform's mount is there
	}
	s, readOnly, err := b.appearance(c, volume, vm, field)
	if err != nil {
		return err
	}
	if vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled {
		return b.pod.fault(field+".recursiveReadOnly", "is Enabled, which the Kata runtime does not offer")
	}
	options := s.Mount.Options
	if i := slices.Index(options, "rw"); i >= 0 && (vm.ReadOnly || readOnly) {
		options[i] = "ro"
	}
	if err := b.propagate(vm.MountPropagation, field, &s.Mount); err != nil {
		return err
	}
	if s.Storage != nil {
		b.group(s.Storage)
		out.Storages = append(out.Storages, *s.Storage)
	}
	b.contents(volume, vm, vars, field, &s.Mount)
	b.place(out, vm.MountPath, s.Mount)
	return nil
}

// propagate lets mounts spread between a volume and the container as far as the manifest asks for, or not at all: of some
// kinds of volumes not every runtime passes it on.
func (b *builder) propagate(mode *corev1.MountPropagationMode, field string, m *policydata.Mount) error {
	if mode == nil || *mode == corev1.MountPropagationNone {
		return nil
	}
	option, ok := map[corev1.MountPropagationMode]string{
		corev1.MountPropagationBidirectional: "rshared", corev1.MountPropagationHostToContainer: "rslave",
	}[*mode]
	if !ok {
		return b.pod.fault(field+".mountPropagation", fmt.Sprintf("is %q, want None, HostToContainer or Bidirectional", *mode))
	}
	if i := slices.Index(m.Options, private); i >= 0 {
		m.ExtraOptions = []string{private, option}
		m.Options = slices.Delete(m.Options, i, i+1)
	}
	return nil
}

// private is the option of a mount that does not spread.
const private = "rprivate"

// subPath checks what Kubernetes checks of a path in a volume.
func (b *builder) subPath(vm corev1.VolumeMount, field string, vars variables) error {
	if vm.SubPath != "" && vm.SubPathExpr != "" {
		return b.pod.fault(field+".subPathExpr", "is there together with subPath")
	}
	missing := ""
	vars.expand(vm.SubPathExpr, func(name string) { missing = name })
	if missing != "" {
		return b.pod.fault(field+".subPathExpr", fmt.Sprintf("refers to %s, which is no variable of the container", missing))
	}
	sub := vm.SubPath + vm.SubPathExpr
	if path.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return b.pod.fault(field+".subPath", "leaves the volume")
	}
	return nil
}

// appearance returns how a volume's mount looks, and whether it is read-only whatever the mount says.
func (b *builder) appearance(c placed, volume *corev1.Volume, vm corev1.VolumeMount, field string) (shaped, bool, error) {
	sub := vm.SubPath != "" || vm.SubPathExpr != ""
	source := volume.VolumeSource
	switch {
	case source.EmptyDir != nil && sub:
		b.warn(field+".subPath", "is of an emptyDir: the runtime then uses a directory of the host, which can read and change it")
		s := b.shape(volumeShared, volume.Name, vm.MountPath)
		s.Mount = b.empty(s.Mount)
		return s, false, nil
	case source.EmptyDir != nil:
		return b.emptyDir(c, volume, vm.MountPath, field)
	case source.ConfigMap != nil, source.Secret != nil, source.Projected != nil, source.DownwardAPI != nil:
		return b.shape(volumeConfig, volume.Name, vm.MountPath), true, nil
	case source.HostPath != nil:
		return b.hostPath(source.HostPath, vm, field), false, nil
	}
	b.warn(field+".name", fmt.Sprintf("mounts %s, whose content comes from the host and is not bound by the policy", volume.Name))
	return b.shape(volumeShared, volume.Name, vm.MountPath), sourceReadOnly(source), nil
}

func (b *builder) emptyDir(c placed, volume *corev1.Volume, destination, field string) (shaped, bool, error) {
	switch medium := volume.EmptyDir.Medium; medium {
	case corev1.StorageMediumDefault:
		s := b.shape(b.settings().Generate.EmptyDir, volume.Name, destination)
		if s.Mount.From == policydata.MountShared && b.hashed() {
			b.warn(field+".name", fmt.Sprintf("mounts the emptyDir %s, which this platform keeps on the host (generate.empty_dir = %q): what the "+
				"container writes there the host can read and change", volume.Name, b.settings().Generate.EmptyDir))
			s.Mount = b.empty(s.Mount)
		}
		return s, false, nil
	case corev1.StorageMediumMemory:
		return b.shape(volumeMemory, volume.Name, destination), false, nil
	default:
		if !strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePages)) {
			return shaped{}, false, b.pod.fault(field+".name", fmt.Sprintf("mounts an emptyDir of medium %s, which is not supported", medium))
		}
		s, err := b.hugePages(c, volume, destination, field)
		return s, false, err
	}
}

// hugePages is memory of the guest in huge pages, as many as the container may have of that size.
func (b *builder) hugePages(c placed, volume *corev1.Volume, destination, field string) (shaped, error) {
	size := strings.TrimPrefix(string(volume.EmptyDir.Medium), string(corev1.StorageMediumHugePages)+"-")
	var options []string
	for name, limit := range c.Resources.Limits {
		of, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		page, err := resource.ParseQuantity(of)
		if huge && err == nil && (of == size || volume.EmptyDir.Medium == corev1.StorageMediumHugePages) {
			options = append(options, fmt.Sprintf("pagesize=%d,size=%d", page.Value(), limit.Value()))
		}
	}
	if len(options) != 1 {
		return shaped{}, b.pod.fault(field+".name", fmt.Sprintf("mounts an emptyDir of medium %s, and resources.limits of container %s has "+
			"not one size of huge pages for it, such as hugepages-2Mi", volume.EmptyDir.Medium, c.Name))
	}
	s := b.shape(volumeMemory, volume.Name, destination)
	s.Storage.Source, s.Storage.FSType, s.Storage.Options = "nodev", hugetlbfs, options
	return s, nil
}

const hugetlbfs = "hugetlbfs"

// hostPath is a path of the guest below /dev, /proc and /sys, else a directory that
// the host shares. A socket is dropped where nothing is shared.
func (b *builder) hostPath(volume *corev1.HostPathVolumeSource, vm corev1.VolumeMount, field string) shaped {
	source, kind := volume.Path, volume.Type
	s := b.shape(volumeShared, vm.Name, vm.MountPath)
	clean := path.Clean(source)
	guests := slices.ContainsFunc([]string{"/dev/", "/proc/", "/sys/"}, func(dir string) bool { return strings.HasPrefix(clean+"/", dir) })
	if vm.SubPath == "" && vm.SubPathExpr == "" && guests {
		s.Mount.From, s.Mount.Source = policydata.MountExact, clean // as runtimes resolve it
		if clean == "/dev" {
			b.warn(field+".name", "mounts /dev of the guest, in which are the devices of its TPM or TEE: a gate that guards these denies it")
		}
	} else {
		b.warn(field+".name", fmt.Sprintf("mounts %s of the host, whose content is not bound by the policy", source))
		s.Mount.MayBeMissing = kind == nil || *kind == corev1.HostPathUnset || *kind == corev1.HostPathSocket
	}
	return s
}

// sourceReadOnly reports whether a volume of storage is read-only by itself.
func sourceReadOnly(s corev1.VolumeSource) bool {
	switch {
	case s.PersistentVolumeClaim != nil:
		return s.PersistentVolumeClaim.ReadOnly
	case s.CSI != nil:
		return isTrue(s.CSI.ReadOnly)
	case s.NFS != nil:
		return s.NFS.ReadOnly
	case s.AzureFile != nil:
		return s.AzureFile.ReadOnly
	case s.AzureDisk != nil:
		return isTrue(s.AzureDisk.ReadOnly)
	case s.ISCSI != nil:
		return s.ISCSI.ReadOnly
	case s.FC != nil:
		return s.FC.ReadOnly
	case s.AWSElasticBlockStore != nil:
		return s.AWSElasticBlockStore.ReadOnly
	case s.GCEPersistentDisk != nil:
		return s.GCEPersistentDisk.ReadOnly
	case s.Cinder != nil:
		return s.Cinder.ReadOnly
	case s.FlexVolume != nil:
		return s.FlexVolume.ReadOnly
	case s.PortworxVolume != nil:
		return s.PortworxVolume.ReadOnly
	}
	return false
}

// group gives a storage of the guest to the pod's fsGroup.
func (b *builder) group(s *policydata.Storage) {
	group := b.pod.security().FSGroup
	if group == nil || *group == 0 || s.FSType == hugetlbfs {
		return
	}
	gid := uint32(*group)
	if s.Driver == "ephemeral" || s.Driver == "local" {
		s.Options = append(s.Options, fmt.Sprintf("fsgid=%d", gid))
		return
	}
	s.FSGroup = &policydata.FSGroup{GID: gid} // always changed: runtimes do not pass on fsGroupChangePolicy of an emptyDir
}

// devices adds the block devices of a container.
func (b *builder) devices(c placed, out *policydata.Container) error {
	for i, device := range c.VolumeDevices {
		field := fmt.Sprintf("%s.volumeDevices[%d]", c.field, i)
		volume, ok := b.volumes[device.Name]
		if !ok || volume.PersistentVolumeClaim == nil && volume.Ephemeral == nil {
			return b.pod.fault(field+".name", fmt.Sprintf("is %s, which is no volume of a claim", device.Name))
		}
		if prefix := b.settings().Generate.VFIO.Path; prefix != "" && strings.HasPrefix(device.DevicePath, prefix) {
			return b.pod.fault(field+".devicePath", "is where passed-through devices are")
		}
		b.warn(field+".name", fmt.Sprintf("is the block device of %s, whose content comes from the host and is not bound by the policy", device.Name))
		out.Devices = append(out.Devices, device.DevicePath)
	}
	return nil
}

// podVolumes returns the pod's volumes by name; the claims of a StatefulSet are volumes of the same name.
func (p *Pod) podVolumes() (map[string]*corev1.Volume, error) {
	all := map[string]*corev1.Volume{}
	for i := range p.owner.spec.Volumes {
		v := &p.owner.spec.Volumes[i]
		field := fmt.Sprintf("spec.volumes[%d]", i)
		if _, twice := all[v.Name]; twice || v.Name == "" {
			return nil, p.fault(field+".name", fmt.Sprintf("is %q, which is empty or used twice", v.Name))
		}
		if v.VolumeSource == (corev1.VolumeSource{}) {
			// Kubernetes takes a volume without a source as an emptyDir.
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
		all[v.Name] = v
	}
	for _, claim := range p.owner.claims {
		all[claim] = &corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}
	}
	return all, nil
}
