// SPDX-License-Identifier: Apache-2.0

// Package generate makes the policy of a pod from its Kubernetes manifest.
//
// [Parse] reads a file of manifests and keeps its text, so that a policy can be written back without touching anything else.
// [Generator.Policy] says what the containers of one pod may be: it follows a pod on its way through kubelet, containerd and the
// Kata runtime, and states what arrives at the agent.
//
// Nothing of a manifest is passed over in silence. Every field of a pod and its containers is in the table of fields.go as used,
// as without effect on the guest, or as refused; a field that Kubernetes does not know is an error. What a reviewer should know
// is a [Finding] with file, line and field.
package generate
