// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
)

// payload are the files of a volume whose contents the kubelet writes, by path.
type payload map[string]hostfs.File

// projected writes a volume of a ConfigMap, Secret, fields of the pod, or several of them.
func (k *Kubelet) projected(v corev1.Volume) (source, error) {
	files := payload{}
	var err error
	switch s := v.VolumeSource; {
	case s.ConfigMap != nil:
		err = k.addConfigMap(files, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.DefaultMode, isTrue(s.ConfigMap.Optional))
		return k.write("configmap", v.Name, 0o777, files), err
	case s.Secret != nil:
		err = k.addSecret(files, s.Secret.SecretName, s.Secret.Items, s.Secret.DefaultMode, isTrue(s.Secret.Optional))
		return k.write("secret", v.Name, 0o1777, files), err
	case s.DownwardAPI != nil:
		err = k.addFields(files, s.DownwardAPI.Items, s.DownwardAPI.DefaultMode)
		return k.write("downward-api", v.Name, 0o1777, files), err
	default:
		for _, part := range s.Projected.Sources {
			if err := k.addPart(files, part, s.Projected.DefaultMode); err != nil {
				return source{}, err
			}
		}
		return k.write("projected", v.Name, 0o1777, files), nil
	}
}

func (k *Kubelet) addPart(files payload, part corev1.VolumeProjection, mode *int32) error {
	switch {
	case part.ConfigMap != nil:
		return k.addConfigMap(files, part.ConfigMap.Name, part.ConfigMap.Items, mode, isTrue(part.ConfigMap.Optional))
	case part.Secret != nil:
		return k.addSecret(files, part.Secret.Name, part.Secret.Items, mode, isTrue(part.Secret.Optional))
	case part.DownwardAPI != nil:
		return k.addFields(files, part.DownwardAPI.Items, mode)
	case part.ServiceAccountToken != nil:
		k.addToken(files, part.ServiceAccountToken.Path, mode)
		return nil
	case part.ClusterTrustBundle != nil:
		files[part.ClusterTrustBundle.Path] = regular(k.node.ClusterCA, mode, nil)
		return nil
	}
	return fmt.Errorf("%w: a projected source that is not emulated", ErrRefused)
}

// addToken adds a token, which only the pod's user may read where it is known.
func (k *Kubelet) addToken(files payload, at string, mode *int32) {
	file := regular([]byte("e30."+k.node.Random.Hex(300)+"."+k.node.Random.Hex(200)), mode, nil)
	group := k.pod.Spec.SecurityContext.FSGroup
	user := k.commonUser()
	if group != nil || user != nil {
		file.Mode = hostfs.Regular | 0o600
	}
	if user != nil {
		file.UID = uint32(*user)
	}
	files[at] = file
}

// commonUser is the user that all containers run as, nil if they differ or say nothing.
func (k *Kubelet) commonUser() (user *int64) {
	spec := &k.pod.Spec
	for i, c := range append(append([]corev1.Container{}, spec.InitContainers...), spec.Containers...) {
		own := firstOf(c.SecurityContext.RunAsUser, spec.SecurityContext.RunAsUser)
		if own == nil || i > 0 && *own != *user {
			return nil
		}
		user = own
	}
	return user
}

func (k *Kubelet) addConfigMap(files payload, name string, items []corev1.KeyToPath, mode *int32, optional bool) error {
	data, err := k.configMap(name, optional)
	if err != nil {
		return err
	}
	return files.add(data, items, mode, optional)
}

func (k *Kubelet) addSecret(files payload, name string, items []corev1.KeyToPath, mode *int32, optional bool) error {
	data, err := k.secret(name, optional)
	if err != nil {
		return err
	}
	return files.add(data, items, mode, optional)
}

func (k *Kubelet) addFields(files payload, items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		value, err := "", error(nil)
		if item.FieldRef != nil {
			value, err = k.field(item.FieldRef.FieldPath)
		} else if item.ResourceFieldRef != nil {
			value, err = k.resourceField(nil, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		files[item.Path] = regular([]byte(value), mode, item.Mode)
	}
	return nil
}

// add adds all keys of an object, or those that the items name.
func (p payload) add(data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional bool) error {
	if len(items) == 0 {
		for key, value := range data {
			if key != node.EveryKey {
				p[key] = regular(value, mode, nil)
			}
		}
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if every, all := data[node.EveryKey]; all && !ok {
			value, ok = every, true
		}
		if !ok && !optional {
			return fmt.Errorf("%w: no key %s", ErrRefused, item.Key)
		}
		if ok {
			p[item.Path] = regular(value, mode, item.Mode)
		}
	}
	return nil
}

func regular(data []byte, mode, own *int32) hostfs.File {
	bits := uint32(0o644)
	if mode != nil {
		bits = uint32(*mode)
	}
	if own != nil {
		bits = uint32(*own)
	}
	return hostfs.File{Mode: hostfs.Regular | bits, Data: data}
}

// write puts files where a change of all of them is one rename: in a directory
// with a time for a name, to which ..data points, and through which links lead.
func (k *Kubelet) write(plugin, name string, mode uint32, files payload) source {
	at := k.dir("volumes", "kubernetes.io~"+plugin, name)
	stamp := fmt.Sprintf("..%s.%d", k.node.Time.Format("2006_01_02_15_04_05"), k.node.Random.Number())
	k.files[at] = k.owned(hostfs.File{Mode: hostfs.Directory | mode})
	k.files[path.Join(at, stamp)] = k.owned(hostfs.File{Mode: hostfs.Directory | 0o755})
	k.files[path.Join(at, "..data")] = k.owned(link(stamp))
	for p, file := range files {
		p = path.Clean(p)
		k.files[path.Join(at, stamp, p)] = k.owned(file)
		first, _, below := strings.Cut(p, "/")
		pointer := link("..data/" + first)
		if k.node.Kubelet >= ownLinks && !below {
			pointer.UID = file.UID
		}
		k.files[path.Join(at, first)] = k.owned(pointer)
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			k.files[path.Join(at, stamp, d)] = k.owned(hostfs.File{Mode: hostfs.Directory | 0o755})
		}
	}
	return source{path: at, readonly: true}
}

// ownLinks is the Kubernetes version, 1.N, in which the link to a file belongs to
// the file's owner. It lies between 1.35 and 1.37.
const ownLinks = 37

func link(target string) hostfs.File {
	return hostfs.File{Mode: hostfs.Symlink | 0o777, Data: []byte(target)}
}

// owned gives a file to the pod's group, which may then read it.
func (k *Kubelet) owned(file hostfs.File) hostfs.File {
	group := k.pod.Spec.SecurityContext.FSGroup
	if group == nil {
		return file
	}
	file.GID = uint32(*group)
	switch file.Type() {
	case hostfs.Regular:
		file.Mode |= 0o440
	case hostfs.Directory:
		file.Mode |= 0o2550
	}
	return file
}
