// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/rules/policydata"
)

// volumeFiles are the files of a volume: what is known of them beforehand.
type volumeFiles struct {
	files map[string]policydata.File // by path in the volume
	open  bool                       // there may be others
	late  bool                       // the content of some was not given
}

func (v *volumeFiles) add(key string, f policydata.File) {
	put(&v.files, path.Clean(key), f)
}

// hashed reports whether the contents of copied files are bound on this platform.
func (b *builder) hashed() bool { return b.settings().Generate.HashConfigFiles }

// contents states what the mount at field holds, where that is known, and says where it is not.
func (b *builder) contents(volume *corev1.Volume, vm corev1.VolumeMount, vars variables, field string, m *policydata.Mount) {
	if !b.hashed() || m.From != policydata.MountShared || !configured(volume) {
		return
	}
	all, known := b.filesOf(volume)
	if !known || all.late {
		b.warn(field+".name", fmt.Sprintf("mounts %s, whose content was not given and is not bound; add its manifest with --config-file", volume.Name))
	}
	if !known {
		return
	}
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var ok bool
		if sub, ok = vars.expand(vm.SubPathExpr, nil).literal(); !ok {
			b.warn(field+".subPathExpr", fmt.Sprintf("chooses a path of %s at run time, whose content is not bound", volume.Name))
			return
		}
	}
	files := below(all.files, path.Clean(sub), sub != "")
	if len(files) == 0 && sub != "" {
		b.warn(field+".subPath", fmt.Sprintf("is %s, which %s does not hold; its content is not bound", sub, volume.Name))
		return
	}
	if all.open && !all.late {
		b.warn(field+".name", fmt.Sprintf("mounts %s, of which not every source was given: other files than the known ones are not bound", volume.Name))
	}
	b.sharedTemporaries(files, volume.Name, field)
	m.Contents = &policydata.Contents{Files: files, Open: all.open}
}

// configured reports whether a volume's files come from the API server.
func configured(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
}

// below returns the files of a path in a volume by their path below it: that path alone is "".
func below(files map[string]policydata.File, sub string, isSub bool) map[string]policydata.File {
	if !isSub {
		return files
	}
	out := map[string]policydata.File{}
	for key, f := range files {
		if key == sub {
			return map[string]policydata.File{"": f}
		}
		if rest, ok := strings.CutPrefix(key, sub+"/"); ok {
			out[rest] = f
		}
	}
	return out
}

// sharedTemporaries warns of files that the agent writes by way of the same temporary file: their name with another extension.
// Of two that are copied at once one may be lost.
func (b *builder) sharedTemporaries(files map[string]policydata.File, volume, field string) {
	temporary := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		by := strings.TrimSuffix(key, path.Ext(key)) + ".tmp"
		if base := path.Base(key); strings.HasPrefix(base, ".") && strings.Count(base, ".") == 1 {
			by = key + ".tmp" // a name that only begins with a dot has no extension
		}
		other, twice := temporary[by]
		if _, itself := files[by]; itself && by != key {
			other, twice = by, true
		}
		if twice {
			b.warn(field+".name", fmt.Sprintf("mounts %s, whose keys %s and %s kata-agent writes by way of one temporary file, %s: "+
				"one of them may be lost; rename one, or mount them apart", volume, other, key, path.Base(by)))
		}
		temporary[by] = key
	}
}

// file is a file of known content.
func (b *builder) file(content []byte, mode uint32, optional bool) policydata.File {
	sum := sha256.Sum256(content)
	return policydata.File{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)), Mode: b.fileMode(mode), Optional: optional}
}

// fileMode is the mode of a file of a volume: the pod's fsGroup may read it.
func (b *builder) fileMode(mode uint32) uint32 {
	if b.pod.security().FSGroup != nil {
		return mode | 0o440
	}
	return mode
}

// modeOf returns the first mode that is given, else the default of Kubernetes.
func modeOf(modes ...*int32) uint32 {
	for _, m := range modes {
		if m != nil {
			return uint32(*m) & 0o777
		}
	}
	return 0o644
}

// filesOf returns the files of a volume, false when nothing is known of them.
func (b *builder) filesOf(volume *corev1.Volume) (volumeFiles, bool) {
	var out volumeFiles
	known := true
	switch {
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		known = b.configFiles(reference{kind: "ConfigMap", name: s.Name, optional: isTrue(s.Optional)}, s.Items, s.DefaultMode, &out)
	case volume.Secret != nil:
		s := volume.Secret
		known = b.configFiles(reference{kind: "Secret", name: s.SecretName, optional: isTrue(s.Optional)}, s.Items, s.DefaultMode, &out)
	case volume.DownwardAPI != nil:
		b.downwardFiles(volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode, &out)
	case volume.Projected != nil:
		some := len(volume.Projected.Sources) == 0
		for _, source := range volume.Projected.Sources {
			if b.projectedFiles(source, volume.Projected.DefaultMode, &out) {
				some = true
			} else {
				out.open = true
			}
		}
		known = some
	}
	return out, known
}

// clusterRoot is the ConfigMap with the certificate of the cluster's API server, beside the token in volumes that Kubernetes adds.
const clusterRoot = "kube-root-ca.crt"

// configFiles adds the files of a ConfigMap or Secret. It returns false when it was not given: an optional one may be made
// later, a required one will be there. Of one that was not given and whose keys the volume names, the names are known.
func (b *builder) configFiles(r reference, items []corev1.KeyToPath, mode *int32, to *volumeFiles) bool {
	found, ok := b.generator.configs.find(r.kind, b.pod.namespace(), r.name)
	if !ok {
		for _, item := range items {
			to.add(item.Path, policydata.File{Optional: r.optional})
		}
		to.late = to.late || r.name != clusterRoot // which only the cluster ever has
		return len(items) > 0
	}
	if len(items) == 0 {
		for key, content := range found.all {
			to.add(key, b.file(content, modeOf(mode), false))
		}
		return true
	}
	for _, item := range items {
		content, ok := found.all[item.Key]
		if !ok && !r.optional {
			return false
		}
		if ok {
			to.add(item.Path, b.file(content, modeOf(item.Mode, mode), false))
		}
	}
	return true
}

// downwardFiles adds files of the pod's own fields. What such a field will hold is not always known.
func (b *builder) downwardFiles(items []corev1.DownwardAPIVolumeFile, mode *int32, to *volumeFiles) {
	for _, item := range items {
		var f policydata.File
		if content, ok := b.downwardContent(item); ok {
			f = b.file([]byte(content), modeOf(item.Mode, mode), false)
		}
		to.add(item.Path, f)
	}
}

func (b *builder) downwardContent(item corev1.DownwardAPIVolumeFile) (string, bool) {
	if item.FieldRef == nil {
		return "", false
	}
	found, err := b.fieldRef(item.FieldRef.FieldPath, "")
	if err != nil {
		return "", false
	}
	return found.literal()
}

// projectedFiles adds the files of one source of a projected volume. It returns false when it was not given.
func (b *builder) projectedFiles(source corev1.VolumeProjection, mode *int32, to *volumeFiles) bool {
	switch {
	case source.ConfigMap != nil:
		s := source.ConfigMap
		return b.configFiles(reference{kind: "ConfigMap", name: s.Name, optional: isTrue(s.Optional)}, s.Items, mode, to)
	case source.Secret != nil:
		s := source.Secret
		return b.configFiles(reference{kind: "Secret", name: s.Name, optional: isTrue(s.Optional)}, s.Items, mode, to)
	case source.DownwardAPI != nil:
		b.downwardFiles(source.DownwardAPI.Items, mode, to)
	case source.ServiceAccountToken != nil:
		// Only the cluster knows it, and who may read it goes by the pod's user.
		to.add(source.ServiceAccountToken.Path, policydata.File{})
	case source.PodCertificate != nil:
		for _, name := range []string{source.PodCertificate.CredentialBundlePath, source.PodCertificate.KeyPath, source.PodCertificate.CertificateChainPath} {
			if name != "" {
				to.add(name, policydata.File{}) // made by the node
			}
		}
	default:
		return false
	}
	return true
}
