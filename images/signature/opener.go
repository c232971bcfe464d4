// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"

	"github.com/opencontainers/go-digest"

	"portcullis/images"
)

// Opener opens images that one of the signers has signed, and no others. One goroutine at a time may use it.
type Opener struct {
	from    *images.Opener
	stores  []images.Store
	signers Signers
	checked map[digest.Digest]bool // by what a reference is pinned to
}

// NewOpener makes an opener of what from opens. Signatures are looked for in stores, in their order.
func NewOpener(from *images.Opener, stores []images.Store, signers Signers) *Opener {
	return &Opener{from: from, stores: stores, signers: signers, checked: map[digest.Digest]bool{}}
}

// Image is [images.Opener.Image], then [Signers.Verify], once for each image.
func (o *Opener) Image(ctx context.Context, reference string) (*images.Image, error) {
	img, err := o.from.Image(ctx, reference)
	if err != nil {
		return nil, err
	}
	if key := img.Digests.Lock(); !o.checked[key] {
		if err := o.signers.Verify(ctx, o.stores, img); err != nil {
			return nil, err
		}
		o.checked[key] = true
	}
	return img, nil
}
