// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"portcullis/images"
)

// Images opens the image that a manifest names. [images.Opener] implements it.
type Images interface {
	// Image returns an error wrapping [images.ErrReference] for what is no name of an image, and one wrapping
	// [images.ErrUntrusted] for an image that no policy shall bind. Any other error that is no [Finding] is a failure to look.
	Image(ctx context.Context, reference string) (*images.Image, error)
}

// opener opens the images of one pod, and says once of each that it cannot be opened.
type opener struct {
	images   Images
	pod      *Pod
	unopened map[string]bool
}

// errUnopened is for an image that another container of the pod has too.
var errUnopened = errors.New("could not be opened before")

func (o *opener) open(ctx context.Context, c placed) (*images.Image, error) {
	field := c.field + ".image"
	if c.Image == "" {
		return nil, o.pod.fault(field, "is missing; a patch has to be applied first, as with kubectl kustomize")
	}
	if strings.TrimSpace(c.Image) != c.Image {
		return nil, o.pod.fault(field, "has spaces around it")
	}
	if o.unopened[c.Image] {
		return nil, errUnopened
	}
	image, err := o.images.Image(ctx, c.Image)
	if errors.Is(err, images.ErrReference) || errors.Is(err, images.ErrUntrusted) {
		return nil, o.pod.fault(field, oneLine(err.Error()))
	}
	if err != nil {
		put(&o.unopened, c.Image, true)
		return nil, fmt.Errorf("%s: %w", o.pod.fault(field, "cannot be opened"), err)
	}
	return image, nil
}

// LockDigests writes the digest that each image of a pod stands for into the manifest, into its text as well as into what
// [Generator.Policy] reads. The error is as that of Policy.
func (m *Manifest) LockDigests(ctx context.Context, p *Pod, from Images) error {
	o := &opener{images: from, pod: p}
	var faults []error
	for _, c := range p.containers() {
		if err := m.lockDigest(ctx, o, c); err != nil && !errors.Is(err, errUnopened) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (m *Manifest) lockDigest(ctx context.Context, o *opener, c placed) error {
	image, err := o.open(ctx, c)
	if err != nil || image.Reference.Pinned() {
		return err
	}
	lock := image.Digests.Lock()
	if lock == "" {
		return o.pod.fault(c.field+".image", fmt.Sprintf("the digest of %s is not known where the image comes from; "+
			"take the image from its registry or a layout, or write the digest into the manifest", c.Image))
	}
	reference := c.Image + "@" + lock.String()
	if err := m.lockImage(o.pod, c.field+".image", reference); err != nil {
		return err
	}
	c.Image = reference
	return nil
}
