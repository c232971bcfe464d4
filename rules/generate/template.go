// SPDX-License-Identifier: Apache-2.0

package generate

import corev1 "k8s.io/api/core/v1"

// Template returns the pod as far as the manifest says it: of a pod that a controller makes, its template, with no name and in the
// controller's namespace.
func (p *Pod) Template() *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: *p.owner.template.DeepCopy(), Spec: *p.owner.spec.DeepCopy()}
	if p.kind != "Pod" {
		out.Name, out.GenerateName = "", ""
	}
	out.Namespace = p.owner.meta.Namespace
	for _, name := range p.owner.claims { // as the controller does
		source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
		out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	}
	return out
}
