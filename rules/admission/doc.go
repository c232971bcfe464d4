// SPDX-License-Identifier: Apache-2.0

// Package admission judges the policy that a pod brings along, before the cluster takes the pod: is it there, can it be read, is it
// of rules that this program knows, does it hold the guest to what the cluster asks of every policy, and is it of this pod as it is
// now? Package admission/webhook asks it for an API server.
//
// It protects owners from mistakes. It protects nothing from the cluster, which can leave it out: that is for the guest and a
// verifier to do.
package admission
