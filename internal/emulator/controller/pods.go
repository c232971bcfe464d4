// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"portcullis/internal/emulator/node"
)

// Identity is what the cluster draws for a pod. Fields that are empty are drawn.
type Identity struct {
	Name, UID string
	Static    bool // the pod is of a file of the node's kubelet, not of the API server
}

// Pod is a pod as the kubelet gets it, and what it refers to.
type Pod struct {
	*corev1.Pod
	Objects Objects
}

// Names are the workloads of a manifest, as "kind/name".
func (m *Manifest) Names() []string {
	var out []string
	for _, w := range m.workloads {
		out = append(out, strings.ToLower(w.kind)+"/"+w.meta.Name)
	}
	return out
}

// Pod makes the first pod of the workload with the given place in [Manifest.Names].
func (m *Manifest) Pod(n *node.Node, at int, id Identity) Pod {
	w := m.workloads[at]
	pod := &corev1.Pod{ObjectMeta: w.template.ObjectMeta, Spec: *w.template.Spec.DeepCopy()}
	pod.Namespace = cmp.Or(w.meta.Namespace, w.template.Namespace, "default")
	pod.Labels, pod.Annotations = maps.Clone(pod.Labels), maps.Clone(pod.Annotations)
	maker := namer{n.Random, id.Name}
	if w.meta.Name == "" && w.kind != "Pod" {
		w.meta.Name = generated(w.meta.GenerateName, n.Random.Suffix(5))
	}
	maker.name(pod, w)
	pod.UID = types.UID(cmp.Or(id.UID, n.Random.UUID()))
	objects := m.Objects
	objects.Claims = maps.Clone(objects.Claims)
	for _, claim := range w.claims {
		addClaim(pod, claim.Name)
		objects.Claims[types.NamespacedName{Namespace: pod.Namespace, Name: claim.Name + "-" + pod.Name}] = claim.DeepCopy()
	}
	if id.Static {
		pod.Name = cmp.Or(id.Name, pod.Name+"-"+n.Name)
		pod.Spec.AutomountServiceAccountToken = new(bool)
	}
	complete(n, pod)
	return Pod{pod, objects}
}

// addClaim gives a pod of a StatefulSet the volume of a claim's template.
func addClaim(pod *corev1.Pod, name string) {
	source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-" + pod.Name}}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
}

// namer names and labels pods as the controllers do.
type namer struct {
	random *node.Random
	given  string // name to use in place of a drawn one
}

func (g namer) name(pod *corev1.Pod, w workload) {
	name := w.meta.Name
	switch w.kind {
	case "Pod":
		pod.Name = cmp.Or(g.given, name, generated(w.meta.GenerateName, g.random.Suffix(5)))
	case "Deployment":
		hash := g.random.Suffix(9)
		pod.Name = cmp.Or(g.given, generated(name+"-"+hash+"-", g.random.Suffix(5)))
		if parts := strings.Split(pod.Name, "-"); g.given != "" && len(parts) > 2 {
			hash = parts[len(parts)-2]
		}
		label(pod, "pod-template-hash", hash)
	case "StatefulSet":
		pod.Name = cmp.Or(g.given, name+"-0")
		index := pod.Name[strings.LastIndex(pod.Name, "-")+1:]
		label(pod, "apps.kubernetes.io/pod-index", index)
		label(pod, "controller-revision-hash", name+"-"+g.random.Suffix(10))
		label(pod, "statefulset.kubernetes.io/pod-name", pod.Name)
		pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, w.service
	case "DaemonSet":
		pod.Name = cmp.Or(g.given, generated(name+"-", g.random.Suffix(5)))
		label(pod, "controller-revision-hash", g.random.Suffix(9))
		label(pod, "pod-template-generation", "1")
	case "CronJob":
		w.meta.Name = fmt.Sprintf("%s-%d", name, 29_412_360)
		if parts := strings.Split(strings.TrimPrefix(g.given, name+"-"), "-"); g.given != "" {
			w.meta.Name = name + "-" + parts[0]
		}
		g.job(pod, w)
	case "Job":
		g.job(pod, w)
	default:
		pod.Name = cmp.Or(g.given, generated(name+"-", g.random.Suffix(5)))
	}
}

// completionIndex names what an indexed Job tells its pods of their place.
const completionIndex = "batch.kubernetes.io/job-completion-index"

func (g namer) job(pod *corev1.Pod, w workload) {
	uid := g.random.UUID()
	label(pod, "batch.kubernetes.io/controller-uid", uid)
	label(pod, "controller-uid", uid)
	label(pod, "batch.kubernetes.io/job-name", w.meta.Name)
	label(pod, "job-name", w.meta.Name)
	if !w.indexed {
		pod.Name = cmp.Or(g.given, generated(w.meta.Name+"-", g.random.Suffix(5)))
		return
	}
	index := "0"
	if g.given != "" {
		parts := strings.Split(g.given, "-")
		index = parts[len(parts)-2]
	}
	place := "-" + index + "-" // never cut off
	pod.Name = cmp.Or(g.given, w.meta.Name[:min(len(w.meta.Name), 63-5-len(place))]+place+g.random.Suffix(5))
	label(pod, completionIndex, index)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[completionIndex] = index
	pod.Spec.Hostname = w.meta.Name + "-" + index
	source := &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + completionIndex + "']"}}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.Env = append(c.Env, corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: source})
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		c.Env = append(c.Env, corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: source})
	}
}

func label(pod *corev1.Pod, key, value string) {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[key] = value
}

// generated cuts the base of a generated name so that the name fits.
func generated(base, suffix string) string {
	return base[:min(len(base), 63-len(suffix))] + suffix
}

// complete fills in what the API server and its admission add to a pod.
func complete(n *node.Node, pod *corev1.Pod) {
	spec := &pod.Spec
	spec.NodeName = cmp.Or(spec.NodeName, n.Name)
	spec.ServiceAccountName = cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount, "default")
	spec.RestartPolicy = cmp.Or(spec.RestartPolicy, corev1.RestartPolicyAlways)
	spec.DNSPolicy = cmp.Or(spec.DNSPolicy, corev1.DNSClusterFirst)
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	pod.CreationTimestamp = metav1.NewTime(n.Time)
	token := ""
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		token = "kube-api-access-" + n.Random.Suffix(5)
		spec.Volumes = append(spec.Volumes, tokenVolume(token))
	}
	if spec.Resources != nil {
		fillIn(&spec.Resources.Requests, spec.Resources.Limits)
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			completeContainer(&containers[i], token)
		}
	}
}

// tokenDir is where a container finds the credentials of its service account.
const tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

func completeContainer(c *corev1.Container, token string) {
	c.TerminationMessagePath = cmp.Or(c.TerminationMessagePath, "/dev/termination-log")
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	fillIn(&c.Resources.Requests, c.Resources.Limits)
	for _, m := range c.VolumeMounts {
		if m.MountPath == tokenDir {
			return
		}
	}
	if token != "" {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: token, MountPath: tokenDir, ReadOnly: true})
	}
}

// fillIn takes over what a list does not have from another.
func fillIn(list *corev1.ResourceList, from corev1.ResourceList) {
	for name, quantity := range from {
		if _, ok := (*list)[name]; !ok {
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = quantity
		}
	}
}

func tokenVolume(name string) corev1.Volume {
	expiration, mode := int64(3607), int32(0o644)
	field := &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: &expiration, Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: RootCA},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: field}}}},
		},
	}}}
}

// RootCA is the ConfigMap of the cluster's certificate authority, which every namespace has.
const RootCA = "kube-root-ca.crt"
