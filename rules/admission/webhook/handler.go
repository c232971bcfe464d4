// SPDX-License-Identifier: Apache-2.0

// Package webhook answers the admission reviews of a Kubernetes API server over HTTPS, with certificates and a floor that may be
// renewed while it runs.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"portcullis/engine"
	"portcullis/hostdata/initdata"
	"portcullis/internal/strictjson"
	"portcullis/rules/admission"
)

// Path is where an API server sends its reviews.
const Path = "/admit"

// maxReview bounds a review, in bytes: etcd takes objects of 1.5 MiB, and an update carries two of them.
const maxReview = 8 << 20

// maxMessage bounds what an answer says, in bytes.
const maxMessage = 4 << 10

// errReview is for a request that is no review of a pod.
var errReview = errors.New("not a review of a pod")

// handler answers reviews.
type handler struct {
	judge *renewed[*admission.Judge]
	busy  chan struct{} // as many reviews are judged at a time as it holds
	log   *slog.Logger
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST a review", http.StatusMethodNotAllowed)
		return
	}
	var review admissionv1.AdmissionReview
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if err == nil {
		err = strictjson.Unmarshal(body, &review)
	}
	if err != nil {
		http.Error(w, "not an AdmissionReview in JSON", http.StatusBadRequest)
		return
	}
	if review.Request == nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() {
		http.Error(w, "not an AdmissionReview of "+admissionv1.SchemeGroupVersion.String(), http.StatusBadRequest)
		return
	}
	review.Response = h.answer(r.Context(), review.Request)
	review.Response.UID, review.Request = review.Request.UID, nil
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		h.log.Warn("the answer did not get through", "error", err)
	}
}

// answer judges the pod of a review. What cannot be judged is refused, with another code.
func (h *handler) answer(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	pod, judged, err := podOf(r)
	if err != nil {
		return refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	judge := h.judge.get()
	if !judged || pod.Spec.RuntimeClassName == nil || !judge.Covers(*pod.Spec.RuntimeClassName) {
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	select {
	case h.busy <- struct{}{}:
		defer func() { <-h.busy }()
	case <-ctx.Done():
		return refuse(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the pod's policy was not judged in time")
	}
	refusals, err := judge.Pod(ctx, pod)
	name := engine.OneLine(pod.Namespace+"/"+pod.Name+pod.GenerateName, 400)
	if err != nil {
		h.log.Error("could not judge", "pod", name, "error", err)
		return refuse(http.StatusInternalServerError, metav1.StatusReasonInternalError, "the pod's policy cannot be judged: "+err.Error())
	}
	if len(refusals) == 0 {
		h.log.Info("taken", "pod", name)
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	texts := make([]string, len(refusals))
	for i, one := range refusals {
		texts[i] = one.String()
	}
	h.log.Info("refused", "pod", name, "faults", strings.Join(texts, " | "))
	return refuse(http.StatusForbidden, metav1.StatusReasonForbidden, "the policy of this pod is not what the cluster wants: "+strings.Join(texts, " | "))
}

// podOf is the pod of a review. It is not judged where its policy is not what changes.
func podOf(r *admissionv1.AdmissionRequest) (pod *corev1.Pod, judged bool, err error) {
	if r.Kind.Group != "" || r.Kind.Kind != "Pod" || r.SubResource != "" {
		return nil, false, fmt.Errorf("%w but of %s %s", errReview, r.Kind.Kind, r.SubResource)
	}
	pod = &corev1.Pod{}
	switch r.Operation {
	case admissionv1.Create:
	case admissionv1.Update:
		var old corev1.Pod
		if err := json.Unmarshal(r.OldObject.Raw, &old); err != nil {
			return nil, false, fmt.Errorf("%w: %w", errReview, err)
		}
		if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
			return nil, false, fmt.Errorf("%w: %w", errReview, err)
		}
		pod.Namespace = r.Namespace
		return pod, !maps.Equal(policies(old.Annotations), policies(pod.Annotations)), nil
	default:
		return pod, false, nil // a pod that is deleted, say
	}
	if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
		return nil, false, fmt.Errorf("%w: %w", errReview, err)
	}
	pod.Namespace = r.Namespace
	return pod, true, nil
}

// policies are the annotations that carry a policy.
func policies(annotations map[string]string) map[string]string {
	out := maps.Clone(annotations)
	maps.DeleteFunc(out, func(key, _ string) bool {
		return !slices.Contains([]string{initdata.Annotation, initdata.OlderAnnotation, initdata.PolicyAnnotation}, key)
	})
	return out
}

func refuse(code int32, reason metav1.StatusReason, text string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: engine.OneLine(text, maxMessage),
	}}
}
