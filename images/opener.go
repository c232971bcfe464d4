// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrReference is wrapped by errors about what is no name of an image.
var ErrReference = errors.New("is no name of an image")

// ErrUntrusted is wrapped by errors about an image that is there, and was not signed as the user demands.
var ErrUntrusted = errors.New("is not trusted")

// Opener opens images from the first of its stores that has them, each once. One goroutine at a time may use it.
type Opener struct {
	stores  []Store
	options Options
	opened  map[string]*Image // by what a manifest says
}

// NewOpener makes an opener that has opened nothing yet.
func NewOpener(stores []Store, o Options) *Opener {
	return &Opener{stores: stores, options: o, opened: map[string]*Image{}}
}

// Image opens the image that a manifest names, such as "nginx" or "a/b:v1@sha256:…". It returns an error wrapping [ErrReference] for
// what names none, else those of [OpenFirst].
func (o *Opener) Image(ctx context.Context, reference string) (*Image, error) {
	if found := o.known(reference); found != nil {
		return found, nil
	}
	ref, err := ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReference, err)
	}
	found, err := OpenFirst(ctx, o.stores, ref, o.options)
	if err != nil {
		return nil, err
	}
	o.opened[reference] = found
	return found, nil
}

// known is an image that was opened by this reference, or by its tag if that stands for the digest that the reference has.
func (o *Opener) known(reference string) *Image {
	if found := o.opened[reference]; found != nil {
		return found
	}
	tag, digest, _ := strings.Cut(reference, "@")
	tagged := o.opened[tag]
	if tagged == nil || digest == "" || string(tagged.Digests.Lock()) != digest {
		return nil
	}
	ref, err := ParseReference(reference)
	if err != nil {
		return nil
	}
	pinned := &Image{Reference: ref, Digests: tagged.Digests, Platform: tagged.Platform, Config: tagged.Config, Layers: tagged.Layers, limits: tagged.limits}
	o.opened[reference] = pinned
	return pinned
}
