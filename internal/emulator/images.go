// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"

	"portcullis/images"
)

// Stores are places where images are, asked in order.
type Stores []images.Store

// Image opens an image in the first store that has it.
func (s Stores) Image(ctx context.Context, name string, withAccounts bool) (images.Config, *images.Accounts, error) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return images.Config{}, nil, err
	}
	image, err := images.OpenFirst(ctx, s, ref, images.Options{})
	if err != nil {
		return images.Config{}, nil, err
	}
	if !withAccounts {
		return image.Config, nil, nil
	}
	accounts, err := image.Accounts(ctx)
	return image.Config, accounts, err
}
