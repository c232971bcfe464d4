// SPDX-License-Identifier: Apache-2.0

// Package controller makes the pods of a manifest: what the API server fills in,
// and what the controllers of the workloads name and label.
package controller

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// ErrNoPod is returned for a manifest without a workload that this package knows.
var ErrNoPod = errors.New("no pod in the manifest")

// Objects are what pods refer to.
type Objects struct {
	ConfigMaps Named[corev1.ConfigMap]
	Secrets    Named[corev1.Secret]
	Claims     Named[corev1.PersistentVolumeClaim]
}

// Named are objects by namespace, as it stands in the manifest, and name.
type Named[T any] map[types.NamespacedName]*T

// In finds the object that a pod means by a name: that of its namespace, or one of no namespace, which is applied to the
// pod's. The namespace of a pod that says none may be any.
func (n Named[T]) In(namespace, name string) (*T, bool) {
	for _, in := range []string{namespace, ""} {
		if o, ok := n[types.NamespacedName{Namespace: in, Name: name}]; ok {
			return o, true
		}
	}
	var only *T
	count := 0
	for key, o := range n {
		if key.Name == name {
			only, count = o, count+1
		}
	}
	return only, count == 1 && namespace == metav1.NamespaceDefault
}

// Manifest is what a file of YAML documents holds.
type Manifest struct {
	Objects   Objects
	workloads []workload
}

// workload is something that makes pods.
type workload struct {
	kind     string
	meta     metav1.ObjectMeta
	template corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim // volumeClaimTemplates
	service  string                         // serviceName of a StatefulSet
	indexed  bool                           // a Job with completionMode Indexed
}

// Decode reads a manifest. Objects of other kinds are passed over.
func Decode(raw []byte) (*Manifest, error) {
	m := &Manifest{Objects: Objects{
		ConfigMaps: Named[corev1.ConfigMap]{}, Secrets: Named[corev1.Secret]{},
		Claims: Named[corev1.PersistentVolumeClaim]{},
	}}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw))) // kubectl's: the last line feed of a document is part of it
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		document, err := toJSON(text)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		if err := m.add(document); err != nil {
			return nil, err
		}
	}
	if len(m.workloads) == 0 {
		return nil, ErrNoPod
	}
	return m, nil
}

// toJSON is a document as kubectl sends it. Merge keys are resolved, scalars keep
// their type: the API server refuses a number where it wants text.
func toJSON(document []byte) ([]byte, error) {
	var v any
	if err := yaml.Unmarshal(document, &v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// list is a typed or untyped list of objects.
type list struct {
	metav1.TypeMeta `json:",inline"`
	Items           []rawObject `json:"items"`
}

type rawObject []byte

func (r *rawObject) UnmarshalJSON(raw []byte) error { *r = bytes.Clone(raw); return nil }

func (m *Manifest) add(document []byte) error {
	var l list
	if err := json.Unmarshal(document, &l); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if len(l.Items) > 0 {
		kind := strings.TrimSuffix(l.Kind, "List") // items of a typed list need not say theirs
		for _, item := range l.Items {
			if err := m.addItem(kind, item); err != nil {
				return err
			}
		}
		return nil
	}
	if err := m.addKind(l.Kind, document); err != nil {
		return fmt.Errorf("read %s: %w", l.Kind, err)
	}
	return nil
}

func (m *Manifest) addItem(kind string, item []byte) error {
	var own metav1.TypeMeta
	if err := json.Unmarshal(item, &own); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if own.Kind != "" || kind == "" {
		return m.add(item)
	}
	return m.addKind(kind, item)
}

func (m *Manifest) addKind(kind string, raw []byte) error {
	switch kind {
	case "Pod":
		var o corev1.Pod
		err := json.Unmarshal(raw, &o)
		m.workloads = append(m.workloads, workload{kind: kind, meta: o.ObjectMeta, template: corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}})
		return err
	case "Deployment":
		return addWorkload(m, kind, raw, func(o *appsv1.Deployment) workload { return workload{meta: o.ObjectMeta, template: o.Spec.Template} })
	case "ReplicaSet":
		return addWorkload(m, kind, raw, func(o *appsv1.ReplicaSet) workload { return workload{meta: o.ObjectMeta, template: o.Spec.Template} })
	case "DaemonSet":
		return addWorkload(m, kind, raw, func(o *appsv1.DaemonSet) workload { return workload{meta: o.ObjectMeta, template: o.Spec.Template} })
	case "StatefulSet":
		return addWorkload(m, kind, raw, func(o *appsv1.StatefulSet) workload {
			return workload{meta: o.ObjectMeta, template: o.Spec.Template, claims: o.Spec.VolumeClaimTemplates, service: o.Spec.ServiceName}
		})
	case "ReplicationController":
		return addWorkload(m, kind, raw, func(o *corev1.ReplicationController) workload {
			w := workload{meta: o.ObjectMeta}
			if o.Spec.Template != nil {
				w.template = *o.Spec.Template
			}
			return w
		})
	case "Job":
		return addWorkload(m, kind, raw, func(o *batchv1.Job) workload { return job(o.ObjectMeta, o.Spec) })
	case "CronJob":
		return addWorkload(m, kind, raw, func(o *batchv1.CronJob) workload { return job(o.ObjectMeta, o.Spec.JobTemplate.Spec) })
	}
	return m.addObject(kind, raw)
}

func job(meta metav1.ObjectMeta, spec batchv1.JobSpec) workload {
	indexed := spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
	return workload{meta: meta, template: spec.Template, indexed: indexed}
}

func addWorkload[T any](m *Manifest, kind string, raw []byte, of func(*T) workload) error {
	o := new(T)
	if err := json.Unmarshal(raw, o); err != nil {
		return err
	}
	w := of(o)
	w.kind = kind
	m.workloads = append(m.workloads, w)
	return nil
}

func (m *Manifest) addObject(kind string, raw []byte) error {
	switch kind {
	case "ConfigMap":
		o := new(corev1.ConfigMap)
		err := json.Unmarshal(raw, o)
		m.Objects.ConfigMaps[named(o)] = o
		return err
	case "Secret":
		o := new(corev1.Secret)
		err := json.Unmarshal(raw, o)
		m.Objects.Secrets[named(o)] = o
		return err
	case "PersistentVolumeClaim":
		o := new(corev1.PersistentVolumeClaim)
		err := json.Unmarshal(raw, o)
		m.Objects.Claims[named(o)] = o
		return err
	}
	return nil
}

func named(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
