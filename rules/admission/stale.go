// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"portcullis/rules/generate"
	"portcullis/rules/policydata"
	"portcullis/rules/review"
)

// stale says where a policy is not the one that the pod would get now. Its requests are left to the floor. What neither pod nor
// settings say is taken from the policy: what an image's configuration gives, values from ConfigMaps and Secrets, contents of files.
func (j *Judge) stale(ctx context.Context, pod *corev1.Pod, has *policydata.Policy) ([]string, error) {
	out := identity(pod, has)
	plain, err := known(pod, has)
	if err != nil {
		return nil, err
	}
	m, err := generate.Parse("pod", plain, generate.ReadOptions{IgnoreUnknown: true})
	var made *policydata.Policy
	if err == nil {
		made, _, err = generate.New(j.settings, &annotatedImages{pod, has}, nil, generate.Options{}).Policy(ctx, m.Pods()[0])
	}
	if found, only := generate.Findings(err); err != nil && only {
		for _, f := range found {
			out = append(out, fmt.Sprintf("no policy can be made of it: %s: %s", f.Field, f.Text))
		}
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	fill(made, has, pod)
	d := review.Compare(&review.Subject{Data: made, Text: []byte("made")}, &review.Subject{Data: has, Text: []byte("has")}, false)
	out = append(out, inContainers("the policy alone has", d.OnlyB, made, has)...)
	return append(out, inContainers("the pod alone has", d.OnlyA, made, has)...), nil
}

// inContainers tells what differs of containers.
func inContainers(title string, groups []review.Group, made, has *policydata.Policy) []string {
	var out []string
	for _, g := range groups {
		name, ok := strings.CutPrefix(g.Subject, "container ")
		if !ok || name == review.Called(policydata.SandboxContainer) {
			continue
		}
		switch {
		case made.Containers[name] == nil:
			out = append(out, fmt.Sprintf("the policy has a container %s, the pod has not", name))
		case has.Containers[name] == nil:
			out = append(out, fmt.Sprintf("the pod has a container %s, the policy has not", name))
		default:
			out = append(out, fmt.Sprintf("container %s: %s: %s", name, title, some(g.Words)))
		}
	}
	return out
}

// some are the first few of many words.
func some(words []string) string {
	const most = 4
	if len(words) <= most {
		return strings.Join(words, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(words[:most], "; "), len(words)-most)
}

// identity compares what the policy says of the pod itself.
func identity(pod *corev1.Pod, has *policydata.Policy) []string {
	var out []string
	if name, err := regexp.Compile(has.Sandbox.Name); pod.Name != "" && err == nil && !name.MatchString(pod.Name) {
		out = append(out, fmt.Sprintf("the pod is called %s, the policy is of one whose name matches %s", pod.Name, has.Sandbox.Name))
	}
	if has.Sandbox.Namespace != "" && pod.Namespace != "" && has.Sandbox.Namespace != pod.Namespace {
		out = append(out, fmt.Sprintf("the pod is in namespace %s, the policy is of %s", pod.Namespace, has.Sandbox.Namespace))
	}
	if shared := pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace; shared != has.Sandbox.PIDNS {
		out = append(out, fmt.Sprintf("shareProcessNamespace is %t, the policy wants %t", shared, has.Sandbox.PIDNS))
	}
	return out
}

// known is a pod's manifest, reduced to what can be known without the cluster, and no more exact than its policy: a policy that was
// made of a template does not have the name of the pod.
func known(pod *corev1.Pod, has *policydata.Policy) ([]byte, error) {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: *pod.Spec.DeepCopy()}
	p.Namespace, p.Labels, p.Annotations = pod.Namespace, pod.Labels, otherAnnotations(pod.Annotations)
	if p.Name = pod.Name; has.Sandbox.Name != "^"+regexp.QuoteMeta(pod.Name)+"$" || pod.Name == "" {
		p.Name, p.GenerateName = "", "pod-"
	}
	if has.Sandbox.Namespace == "" {
		p.Namespace = ""
	}
	if p.Spec.Hostname == pod.Name { // as a StatefulSet sets it
		p.Spec.Hostname = ""
	}
	p.Spec.EphemeralContainers = nil // added to pods that run; the guest denies them
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i].EnvFrom = nil
			list[i].Env = slices.DeleteFunc(list[i].Env, func(e corev1.EnvVar) bool {
				return e.ValueFrom != nil && (e.ValueFrom.ConfigMapKeyRef != nil || e.ValueFrom.SecretKeyRef != nil)
			})
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write pod: %w", err)
	}
	return text, nil
}

// otherAnnotations are those that hold no policy.
func otherAnnotations(all map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range all {
		if k, _, _ := PolicyOf(map[string]string{key: value}); k == "" {
			out[key] = value
		}
	}
	return out
}
