// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"portcullis/engine"
)

// blocked is in the answer of a guest whose policy denies a request.
const blocked = "is blocked by policy"

// maxTold bounds what is shown of a status, which the cluster writes, in bytes.
const maxTold = 1200

// denials prints which denials the status of the pods tells of.
func denials(out io.Writer, manifest []byte) error {
	var told []string
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var list struct {
			corev1.Pod `json:",inline"`
			Items      []corev1.Pod `json:"items"`
		}
		err := d.Decode(&list)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the pod's status: %w", err)
		}
		for _, p := range append(list.Items, list.Pod) {
			told = append(told, deniedIn(p.Status)...)
		}
	}
	for _, one := range slices.Compact(told) {
		if _, err := fmt.Fprintf(out, "\nDENIED %s\n", one); err != nil {
			return err
		}
	}
	return nil
}

// deniedIn are the denials in the status of a pod, one line each.
func deniedIn(s corev1.PodStatus) []string {
	var out []string
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
			for _, text := range messages(state) {
				if strings.Contains(text, blocked) {
					out = append(out, "container "+c.Name+": "+engine.OneLine(text, maxTold))
				}
			}
		}
	}
	for _, text := range append([]string{s.Message}, conditions(s)...) {
		if strings.Contains(text, blocked) {
			out = append(out, engine.OneLine(text, maxTold))
		}
	}
	return out
}

func messages(s corev1.ContainerState) []string {
	var out []string
	if s.Waiting != nil {
		out = append(out, s.Waiting.Message)
	}
	if s.Terminated != nil {
		out = append(out, s.Terminated.Message)
	}
	return out
}

func conditions(s corev1.PodStatus) []string {
	var out []string
	for _, c := range s.Conditions {
		out = append(out, c.Message)
	}
	return out
}
