// SPDX-License-Identifier: Apache-2.0

// Package images answers what a policy generator asks of a container image: which digests a reference stands for, what
// its configuration says, which user a container runs as, and what bytes its layers hold.
//
// A [Store] is a place where images are: a registry (package registry), a directory or archive (package layout), a
// containerd daemon (package containerd). A Store is not trusted. [Open] checks every byte it hands out against the
// digest that named it, from the manifest down to the layers, and bounds everything it reads by [Limits]. What a tag
// means is the one thing the store decides; a reference with a digest leaves it no choice.
//
// Layers are read only when something in them is asked for: [Image.Accounts], or [Layer.Open].
package images
