// SPDX-License-Identifier: Apache-2.0

// Package learn finds the settings under which a pod that a cluster really ran is allowed: of each request that its policy
// denies, it looks up each finding in a table of what a container runtime may choose, and adds the narrowest setting that accepts
// it. What is not in the table is the owner's word, and is refused.
package learn
