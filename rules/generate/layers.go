package generate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"portcullis/rules/policydata"
)

// What the runtime of dm-verity layers (tardev snapshotter) puts into storages.
const (
	layerDir    = "/run/kata-containers/sandbox/layers"
	layerOption = "io.katacontainers.fs-opt."
)

// image sets where a container's root filesystem comes from.
func (b *builder) image(ctx context.Context, c placed, image Image, out *policydata.Container) error {
	facts := image.Facts()
	out.Image = policydata.Image{
		Annotation: facts.Reference(),
		Digest:     facts.Digest,
		From:       b.settings().Generate.ImageFrom,
		Source:     facts.Reference(),
	}
	// The kubelet has told the runtime since 1.29 what the manifest says; before, and
	// with other runtimes, the name is the normalised one.
	if c.Image != facts.Reference() {
		out.Image.Also = []string{c.Image}
	}
	if out.Image.From != policydata.Layers {
		return nil
	}
	layers, err := image.Layers(ctx)
	if err != nil {
		return err
	}
	for i, layer := range layers {
		if layer.LeftOut > 0 {
			b.warn(c.field+".image", fmt.Sprintf("has a layer (%d) of which the guest will not see %d entries, as tardev leaves them out; the first is %s",
				i, layer.LeftOut, layer.Left))
		}
	}
	layerStorages(layers, out)
	return nil
}

// layerStorages adds a block device for each layer and the overlay over them, the
// top layer first.
func layerStorages(layers []Layer, out *policydata.Container) {
	var ids, options []string
	for i := len(layers) - 1; i >= 0; i-- {
		layer := layers[i]
		sum := sha256.Sum256([]byte(layer.ChainID))
		id := hex.EncodeToString(sum[:])
		root := layerOption + "root-hash=" + layer.RootHash
		out.Storages = append(out.Storages, policydata.Storage{
			Driver: "$(block)", Source: "$(device)", FSType: "tar", MountPoint: layerDir + "/" + id,
			Options: []string{"ro", layerOption + "block_device=file", layerOption + "is-layer", root},
		})
		whole := fmt.Sprintf("%s,tar,ro,%sblock_device=file,%sis-layer,%s", id, layerOption, layerOption, root)
		options = append(options, layerOption+"layer="+base64.StdEncoding.EncodeToString([]byte(whole)))
		ids = append(ids, id)
		out.Image.Layers = append(out.Image.Layers, layer.RootHash)
	}
	overlay := append([]string{layerOption + "layer-src-prefix=" + layerDir}, options...)
	overlay = append(overlay, layerOption+"overlay-rw", "lowerdir="+strings.Join(ids, ":"))
	out.Storages = append(out.Storages, policydata.Storage{
		Driver: "overlayfs", Source: "none", FSType: "fuse3.kata-overlay", MountPoint: "$(root)", Options: overlay,
	})
}
