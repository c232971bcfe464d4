// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"portcullis/images"
	"portcullis/images/verity"
	"portcullis/rules/policydata"
)

// What the runtime of dm-verity layers (tardev snapshotter) puts into storages.
const (
	layerDir    = "/run/kata-containers/sandbox/layers"
	layerOption = "io.katacontainers.fs-opt."
)

// tagPattern is a tag behind a name. containerd 1 names an image by the first in order of all the names that the node has for it:
// one that is pinned may come by a tag, which the guest does not need where it does not pull.
const tagPattern = `:[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}`

// image sets where a container's root filesystem comes from.
func (b *builder) image(ctx context.Context, c placed, image *images.Image, out *policydata.Container) error {
	name := image.Reference.PullName()
	out.OCI.Annotations.ImageName = name
	out.Image = policydata.Image{
		Digest: image.Reference.Digest.String(),
		From:   b.settings().Generate.ImageFrom,
		Source: name,
	}
	// Since 1.29 the kubelet passes the runtime what the manifest says; before, and
	// with other runtimes, the name is the normalised one.
	if c.Image != name {
		out.Image.Also = []string{c.Image}
	}
	if out.Image.From != policydata.GuestPull && image.Reference.Pinned() {
		put(&out.Annotations.Patterns, "io.kubernetes.cri.image-name", "^"+regexp.QuoteMeta(image.Reference.Name())+tagPattern+"$")
	}
	if out.Image.From != policydata.Layers {
		return nil
	}
	layers, err := verityLayers(ctx, image)
	if err != nil {
		return err
	}
	for i, layer := range layers {
		if layer.leftOut > 0 {
			b.warn(c.field+".image", fmt.Sprintf("has a layer (%d) of which the guest will not see %d entries, as tardev leaves them out; the first is %s",
				i, layer.leftOut, layer.left))
		}
	}
	layerStorages(layers, out)
	return nil
}

// verityLayer is a layer of an image on a block device.
type verityLayer struct {
	chainID string // OCI chain id of this layer and those below, "sha256:…"
	root    string // dm-verity root hash, lower-case hex
	leftOut int    // entries that the guest's file system cannot show
	left    string // what the first of them is, in words
}

// verityLayers reads all layers of an image, lowest first.
func verityLayers(ctx context.Context, image *images.Image) ([]verityLayer, error) {
	chain := image.ChainIDs()
	layers := make([]verityLayer, len(chain))
	for i := range image.Layers {
		layer, err := verityLayerOf(ctx, &image.Layers[i])
		if err != nil {
			return nil, fmt.Errorf("layer %d of %s: %w", i, image.Reference, err)
		}
		layer.chainID = chain[i].String()
		layers[i] = layer
	}
	return layers, nil
}

func verityLayerOf(ctx context.Context, layer *images.Layer) (out verityLayer, err error) {
	tar, err := layer.Open(ctx)
	if err != nil {
		return out, err
	}
	defer tar.Close()
	root, err := verity.LayerRoot(tar, verity.Options{Left: func(about string) {
		out.leftOut++
		if out.left == "" {
			out.left = about
		}
	}})
	out.root = root.String()
	return out, err
}

// layerStorages adds a block device for each layer and the overlay over them, the top layer first.
func layerStorages(layers []verityLayer, out *policydata.Container) {
	var ids, options []string
	for i := len(layers) - 1; i >= 0; i-- {
		layer := layers[i]
		sum := sha256.Sum256([]byte(layer.chainID))
		id := hex.EncodeToString(sum[:])
		root := layerOption + "root-hash=" + layer.root
		out.Storages = append(out.Storages, policydata.Storage{
			Driver: "$(block)", Source: "$(device)", FSType: "tar", MountPoint: layerDir + "/" + id,
			Options: []string{"ro", layerOption + "block_device=file", layerOption + "is-layer", root},
		})
		whole := fmt.Sprintf("%s,tar,ro,%sblock_device=file,%sis-layer,%s", id, layerOption, layerOption, root)
		options = append(options, layerOption+"layer="+base64.StdEncoding.EncodeToString([]byte(whole)))
		ids = append(ids, id)
		out.Image.Layers = append(out.Image.Layers, layer.root)
	}
	overlay := append([]string{layerOption + "layer-src-prefix=" + layerDir}, options...)
	overlay = append(overlay, layerOption+"overlay-rw", "lowerdir="+strings.Join(ids, ":"))
	out.Storages = append(out.Storages, policydata.Storage{
		Driver: "overlayfs", Source: "none", FSType: "fuse3.kata-overlay", MountPoint: "$(root)", Options: overlay,
	})
}
