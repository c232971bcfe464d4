// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReadOptions say how Parse reads.
type ReadOptions struct {
	IgnoreUnknown bool // unknown fields become warnings (upstream's --silent-unsupported-fields)
}

// Manifest is one file of Kubernetes objects together with its text.
type Manifest struct {
	file       string
	text       []byte
	docs       []*document
	pods       []*Pod
	configMaps []*corev1.ConfigMap
	secrets    []*corev1.Secret
	warnings   []*Finding
	edits      []edit
}

// Pod is a pod, or the template of pods, in a manifest.
type Pod struct {
	doc       *document
	field     string // path of the template in the document
	kind      string
	owner     owner
	names     podNames
	hostnames podNames // that the controller sets, nil where they are the names
}

// Name returns "Kind name" of the object, for messages.
func (p *Pod) Name() string {
	if p.owner.meta.Name == "" {
		return p.kind + " " + p.owner.meta.GenerateName + "*"
	}
	return p.kind + " " + p.owner.meta.Name
}

// RuntimeClass returns the name of the pod's runtime class, "" when it has none.
func (p *Pod) RuntimeClass() string {
	if p.owner.spec.RuntimeClassName == nil {
		return ""
	}
	return *p.owner.spec.RuntimeClassName
}

// Annotation returns an annotation of the pod, "" when it has none.
func (p *Pod) Annotation(key string) string { return p.owner.template.Annotations[key] }

// fault makes a finding about a field below the pod template.
func (p *Pod) fault(field, text string) *Finding { return p.doc.fault(join(p.field, field), text) }

// Parse reads a file with any number of YAML documents (or JSON, which is YAML). Objects of kinds that have no pods and no
// configuration are left alone. Every error is a [Finding] or several, see [Findings].
func Parse(file string, text []byte, o ReadOptions) (*Manifest, error) {
	text, note, err := decodeText(file, text)
	if err != nil {
		return nil, err
	}
	docs, err := split(file, text)
	if err != nil {
		return nil, err
	}
	m := &Manifest{file: file, text: text, docs: docs}
	if note != nil {
		m.warnings = append(m.warnings, note)
	}
	for _, doc := range docs {
		d := &decoder{doc: doc, ignoreUnknown: o.IgnoreUnknown}
		if err := m.object(d, doc.json, "", metav1.TypeMeta{}, 0); err != nil {
			return nil, err
		}
		m.warnings = append(m.warnings, d.warnings...)
	}
	return m, nil
}

// File returns the name that was given to Parse.
func (m *Manifest) File() string { return m.file }

// Pods returns the pods of the file in their order.
func (m *Manifest) Pods() []*Pod { return m.pods }

// Warnings returns what reading found, in order.
func (m *Manifest) Warnings() []*Finding { return m.warnings }

// object reads one object, the JSON at prefix of the document. What it does not say of its kind is what the typed list
// says that it is in.
func (m *Manifest) object(d *decoder, text []byte, prefix string, within metav1.TypeMeta, level int) error {
	var head metav1.TypeMeta
	if err := json.Unmarshal(text, &head); err != nil {
		return d.doc.fault(prefix, "has no apiVersion and kind, so it is no Kubernetes object")
	}
	head.Kind, head.APIVersion = cmp.Or(head.Kind, within.Kind), cmp.Or(head.APIVersion, within.APIVersion)
	if head.Kind == "" || head.APIVersion == "" {
		return d.doc.fault(prefix, "has no apiVersion and kind, so it is no Kubernetes object")
	}
	key := head.APIVersion + "/" + head.Kind
	switch {
	case isList(text, head):
		return m.list(d, text, prefix, head, level)
	case key == "v1/ConfigMap":
		var found corev1.ConfigMap
		if err := d.decode(text, prefix, &found); err != nil {
			return err
		}
		m.configMaps = append(m.configMaps, &found)
		return nil
	case key == "v1/Secret":
		var found corev1.Secret
		if err := d.decode(text, prefix, &found); err != nil {
			return err
		}
		m.secrets = append(m.secrets, &found)
		return nil
	}
	kind, ok := workloads[key]
	if !ok {
		return m.other(d, text, prefix, head)
	}
	return m.workload(d, text, prefix, head.Kind, kind)
}

// isList reports whether an object is a list, as kubectl sees it: a v1 List, or a kind so named that has a list of
// objects as its items.
func isList(text []byte, head metav1.TypeMeta) bool {
	if head.APIVersion == "v1" && head.Kind == "List" {
		return true
	}
	if !strings.HasSuffix(head.Kind, "List") {
		return false
	}
	var list struct{ Items []map[string]json.RawMessage }
	return json.Unmarshal(text, &list) == nil && list.Items != nil
}

func (m *Manifest) list(d *decoder, text []byte, prefix string, head metav1.TypeMeta, level int) error {
	if level > maxDepth {
		return d.doc.fault(prefix, "has Lists nested too deep")
	}
	var list struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata,omitempty"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := d.decode(text, prefix, &list); err != nil {
		return err
	}
	within := metav1.TypeMeta{Kind: strings.TrimSuffix(head.Kind, "List"), APIVersion: head.APIVersion}
	if within.Kind == "" {
		within = metav1.TypeMeta{} // of a List, whose items say it themselves
	}
	for i, item := range list.Items {
		if err := m.object(d, item, join(prefix, "items["+strconv.Itoa(i)+"]"), within, level+1); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) workload(d *decoder, text []byte, prefix, kind string, w workload) error {
	owner, err := w.read(d, text, prefix)
	if err != nil {
		return err
	}
	field := join(prefix, w.path)
	if owner.spec == nil || len(owner.spec.Containers) == 0 {
		return d.doc.fault(join(field, "spec.containers"), "is empty; a pod has at least one container")
	}
	var names, hostnames podNames
	for _, object := range objectName(owner.meta) {
		names = append(names, owner.names(object)...)
		if owner.hostname != nil {
			hostnames = append(hostnames, owner.hostname(object))
		}
	}
	if len(names) == 0 {
		return d.doc.fault(join(prefix, "metadata.name"), "is missing, and so is metadata.generateName")
	}
	m.pods = append(m.pods, &Pod{doc: d.doc, field: field, kind: kind, owner: owner, names: names, hostnames: hostnames})
	return nil
}

// other passes an object through, but not in silence if it has pods of its own.
func (m *Manifest) other(d *decoder, text []byte, prefix string, head metav1.TypeMeta) error {
	for key := range workloads {
		group, kind, _ := cutLast(key, "/")
		// Only groups of Kubernetes itself are known to have had these kinds.
		if kind == head.Kind && slices.Contains([]string{"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2", "batch/v1beta1", "batch/v2alpha1"}, head.APIVersion) {
			return d.doc.fault(join(prefix, "apiVersion"), fmt.Sprintf("is %s, which Kubernetes no longer has; use %s", head.APIVersion, group))
		}
	}
	if where := podTemplate(text); where != "" {
		m.warnings = append(m.warnings, d.doc.fault(join(prefix, where),
			fmt.Sprintf("describes pods of a %s (%s), for which no policy was made", head.Kind, head.APIVersion)))
	}
	return nil
}

// podTemplate returns where in an object of an unknown kind containers are described, "" when nowhere.
func podTemplate(text []byte) string {
	var tree any
	if json.Unmarshal(text, &tree) != nil {
		return ""
	}
	return containersBelow(tree, "", 0)
}

func containersBelow(v any, path string, level int) string {
	m, ok := v.(map[string]any)
	if !ok || level > 6 {
		return ""
	}
	if list, ok := m["containers"].([]any); ok && strings.HasSuffix(path, "spec") && len(list) > 0 {
		return path
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if found := containersBelow(m[key], join(path, key), level+1); found != "" {
			return found
		}
	}
	return ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
