package generate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"portcullis/rules/policydata"
)

// contentSet collects what files the mounts of each base name hold. A base name
// is what the host's requests say of a file's mount, so mounts that share one
// share their contents.
type contentSet struct {
	files   map[string]map[string][]string
	unbound map[string]bool // base names with files whose content is not known
}

// contents records the files of the mount at field.
func (b *builder) contents(volume *corev1.Volume, vm corev1.VolumeMount, field string) {
	shape := b.settings().Generate
	if !shape.HashConfigFiles || shape.Volumes[volumeConfig].Mount.From != policydata.MountShared {
		return
	}
	base := path.Base(vm.MountPath)
	files, known := b.filesOf(volume)
	if !known && (volume.ConfigMap != nil || volume.Secret != nil) {
		b.warn(field+".name", fmt.Sprintf("mounts %s, whose content was not given and is not bound; add its manifest with --config-file", volume.Name))
	}
	// A path inside a volume arrives as one file or another directory.
	if !known || vm.SubPath != "" || vm.SubPathExpr != "" {
		put(&b.content.unbound, base, true)
		return
	}
	put(&b.content.files, base, b.content.files[base])
	for name, content := range files {
		sum := sha256.Sum256(content)
		hash := hex.EncodeToString(sum[:])
		into := b.content.files[base]
		if !slices.Contains(into[name], hash) {
			put(&into, name, append(into[name], hash))
			slices.Sort(into[name])
		}
		b.content.files[base] = into
	}
}

// finishContents states the contents in the policy, but not of base names that
// also hold files of unknown content.
func (b *builder) finishContents() {
	for _, c := range b.policy.Containers {
		for destination, m := range c.Mounts {
			base := path.Base(destination)
			if _, stated := b.content.files[base]; m.From == policydata.MountShared && !stated {
				put(&b.content.unbound, base, true)
			}
		}
	}
	for destination := range b.settings().Generate.Container.Mounts {
		delete(b.content.files, path.Base(destination))
	}
	for base, files := range b.content.files {
		if !b.content.unbound[base] {
			if files == nil {
				files = map[string][]string{}
			}
			put(&b.policy.Files, base, files)
		}
	}
}

// filesOf returns the files of a volume, false when one is known only at run time.
func (b *builder) filesOf(volume *corev1.Volume) (map[string][]byte, bool) {
	switch {
	case volume.ConfigMap != nil:
		return b.configFiles(volume.ConfigMap.Name, false, isTrue(volume.ConfigMap.Optional), volume.ConfigMap.Items)
	case volume.Secret != nil:
		return b.configFiles(volume.Secret.SecretName, true, isTrue(volume.Secret.Optional), volume.Secret.Items)
	case volume.DownwardAPI != nil:
		return b.downwardFiles(volume.DownwardAPI.Items)
	case volume.Projected != nil:
		return b.projectedFiles(volume.Projected.Sources)
	}
	return nil, false
}

func (b *builder) configFiles(name string, secret, optional bool, items []corev1.KeyToPath) (map[string][]byte, bool) {
	find := b.generator.configs.configMap
	if secret {
		find = b.generator.configs.secret
	}
	found, ok := find(b.pod.namespace(), name)
	if !ok {
		// An optional object may be made later; a required one will be there.
		return nil, false
	}
	if len(items) == 0 {
		return found.all, true
	}
	files := map[string][]byte{}
	for _, item := range items {
		content, ok := found.all[item.Key]
		if !ok && !optional {
			return nil, false
		}
		if ok {
			files[path.Clean(item.Path)] = content
		}
	}
	return files, true
}

func (b *builder) downwardFiles(items []corev1.DownwardAPIVolumeFile) (map[string][]byte, bool) {
	files := map[string][]byte{}
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, false
		}
		found, err := b.fieldRef(item.FieldRef.FieldPath, "")
		if err != nil {
			return nil, false
		}
		content, ok := found.literal()
		if !ok {
			return nil, false
		}
		files[path.Clean(item.Path)] = []byte(content)
	}
	return files, true
}

func (b *builder) projectedFiles(sources []corev1.VolumeProjection) (map[string][]byte, bool) {
	files := map[string][]byte{}
	for _, source := range sources {
		var some map[string][]byte
		known := false
		switch {
		case source.ConfigMap != nil:
			some, known = b.configFiles(source.ConfigMap.Name, false, isTrue(source.ConfigMap.Optional), source.ConfigMap.Items)
		case source.Secret != nil:
			some, known = b.configFiles(source.Secret.Name, true, isTrue(source.Secret.Optional), source.Secret.Items)
		case source.DownwardAPI != nil:
			some, known = b.downwardFiles(source.DownwardAPI.Items)
		}
		if !known {
			return nil, false
		}
		for name, content := range some {
			files[name] = content
		}
	}
	return files, true
}
