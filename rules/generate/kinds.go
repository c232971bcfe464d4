// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// owner is what a workload of any kind says about its pods.
type owner struct {
	meta     *metav1.ObjectMeta // of the object
	template *metav1.ObjectMeta // of the pods
	spec     *corev1.PodSpec
	names    func(object name) podNames
	claims   []string               // volume claims made for each pod
	hostname func(object name) name // that the controller sets, nil where it is the pod's name
	// The controller sets the pod's name as its host name, whatever the template says.
	hostIsPod bool
	indexed   bool // the controller adds JOB_COMPLETION_INDEX
}

// workload is a kind of object that has pods.
type workload struct {
	path string // of the pod template in the object, "" for the object itself
	read func(*decoder, []byte, string) (owner, error)
}

// workloads are the kinds that get a policy, by "apiVersion/kind".
var workloads = map[string]workload{
	"v1/Pod":                   {"", of(pod)},
	"v1/ReplicationController": {"spec.template", of(replicationController)},
	"apps/v1/ReplicaSet":       {"spec.template", of(replicaSet)},
	"apps/v1/Deployment":       {"spec.template", of(deployment)},
	"apps/v1/DaemonSet":        {"spec.template", of(daemonSet)},
	"apps/v1/StatefulSet":      {"spec.template", of(statefulSet)},
	"batch/v1/Job":             {"spec.template", of(job)},
	"batch/v1/CronJob":         {"spec.jobTemplate.spec.template", of(cronJob)},
}

// of decodes an object of type T and picks from it what an owner says.
func of[T any](pick func(*T) owner) func(*decoder, []byte, string) (owner, error) {
	return func(d *decoder, text []byte, prefix string) (owner, error) {
		var object T
		if err := d.decode(text, prefix, &object); err != nil {
			return owner{}, err
		}
		return pick(&object), nil
	}
}

func pod(o *corev1.Pod) owner {
	return owner{meta: &o.ObjectMeta, template: &o.ObjectMeta, spec: &o.Spec, names: func(n name) podNames { return podNames{n} }}
}

func replicationController(o *corev1.ReplicationController) owner {
	if o.Spec.Template == nil {
		return owner{meta: &o.ObjectMeta}
	}
	return templated(&o.ObjectMeta, o.Spec.Template, childNames)
}

func replicaSet(o *appsv1.ReplicaSet) owner {
	return templated(&o.ObjectMeta, &o.Spec.Template, childNames)
}

func daemonSet(o *appsv1.DaemonSet) owner {
	return templated(&o.ObjectMeta, &o.Spec.Template, childNames)
}

func deployment(o *appsv1.Deployment) owner {
	return templated(&o.ObjectMeta, &o.Spec.Template, func(n name) podNames {
		hash := piece{class: suffixClass, min: 1, max: maxHashLength}
		return n.with(literal("-"), hash, literal("-")).generated()
	})
}

func statefulSet(o *appsv1.StatefulSet) owner {
	found := templated(&o.ObjectMeta, &o.Spec.Template, func(n name) podNames {
		return podNames{n.with(literal("-"), piece{class: "[0-9]", min: 1, max: 10})}
	})
	found.hostIsPod = true
	for _, claim := range o.Spec.VolumeClaimTemplates {
		found.claims = append(found.claims, claim.Name)
	}
	return found
}

func job(o *batchv1.Job) owner {
	return jobOwner(&o.ObjectMeta, &o.Spec, func(n name) name { return n })
}

// cronJob names its jobs by the minute for which they were due, since 1970.
func cronJob(o *batchv1.CronJob) owner {
	return jobOwner(&o.ObjectMeta, &o.Spec.JobTemplate.Spec, func(n name) name {
		return n.with(literal("-"), piece{class: "[0-9]", min: 8, max: 10})
	})
}

// jobOwner is for the pods of a job whose own name is made by jobName.
func jobOwner(meta *metav1.ObjectMeta, spec *batchv1.JobSpec, jobName func(name) name) owner {
	if spec.CompletionMode == nil || *spec.CompletionMode != batchv1.IndexedCompletion {
		return templated(meta, &spec.Template, func(n name) podNames { return childNames(jobName(n)) })
	}
	digits := 10
	if spec.Completions != nil && *spec.Completions > 0 {
		digits = len(strconv.Itoa(int(*spec.Completions) - 1))
	}
	found := templated(meta, &spec.Template, func(n name) podNames { return indexedNames(jobName(n), digits) })
	found.indexed = true
	found.hostname = func(n name) name { return jobName(n).with(literal("-"), piece{class: "[0-9]", min: 1, max: digits}) }
	return found
}

// indexedNames are job-INDEX-SUFFIX, where a long job name is cut to fit.
func indexedNames(job name, digits int) podNames {
	if job.longest()+digits+2 <= maxBase {
		return podNames{job.with(literal("-"), piece{class: "[0-9]", min: 1, max: digits}, literal("-"), randomSuffix)}
	}
	var all podNames
	for n := 1; n <= digits; n++ {
		for _, base := range job.cut(maxBase - n - 2) {
			all = append(all, base.with(literal("-"), piece{class: "[0-9]", min: n, max: n}, literal("-"), randomSuffix))
		}
	}
	return all
}

// childNames are those that a controller generates from its own name.
func childNames(n name) podNames { return n.with(literal("-")).generated() }

func templated(meta *metav1.ObjectMeta, template *corev1.PodTemplateSpec, names func(name) podNames) owner {
	return owner{meta: meta, template: &template.ObjectMeta, spec: &template.Spec, names: names}
}

// objectName returns the name of an object, or the one that Kubernetes will generate; nil when it has neither.
func objectName(meta *metav1.ObjectMeta) podNames {
	switch {
	case meta.Name != "":
		return podNames{{literal(meta.Name)}}
	case meta.GenerateName != "":
		return name{literal(meta.GenerateName)}.generated()
	}
	return nil
}
