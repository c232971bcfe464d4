package generate

import (
	"context"
	"fmt"

	"portcullis/images"
	"portcullis/images/verity"
)

// Stores opens images from the first of the stores that has them, each once.
type Stores struct {
	stores  []images.Store
	options images.Options
	opened  map[string]*storedImage
}

// FromStores makes an Images of stores.
func FromStores(stores []images.Store, o images.Options) *Stores {
	return &Stores{stores: stores, options: o, opened: map[string]*storedImage{}}
}

// Image implements Images. An error that is no [Finding] is a failure to look.
func (s *Stores) Image(ctx context.Context, reference string) (Image, error) {
	if found, ok := s.opened[reference]; ok {
		return found, nil
	}
	ref, err := images.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReference, err)
	}
	image, err := images.OpenFirst(ctx, s.stores, ref, s.options)
	if err != nil {
		return nil, err
	}
	found := &storedImage{image}
	s.opened[reference] = found
	return found, nil
}

type storedImage struct{ image *images.Image }

func (s *storedImage) Facts() Facts {
	c := s.image.Config
	return Facts{
		Name: s.image.Reference.Name(), Tag: s.image.Reference.Tag, Digest: string(s.image.Reference.Digest),
		Lock: string(s.image.Digests.Lock()),
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, Volumes: c.Volumes,
	}
}

func (s *storedImage) Identity(ctx context.Context, user string) (Identity, error) {
	id, err := s.image.Identity(ctx, user, images.Always)
	return Identity{UID: id.UID, GID: id.GID, AdditionalGIDs: id.AdditionalGIDs}, err
}

func (s *storedImage) Layers(ctx context.Context) ([]Layer, error) {
	chain := s.image.ChainIDs()
	layers := make([]Layer, len(chain))
	for i := range s.image.Layers {
		layer, err := rootOf(ctx, &s.image.Layers[i])
		if err != nil {
			return nil, fmt.Errorf("layer %d of %s: %w", i, s.image.Reference, err)
		}
		layer.ChainID = string(chain[i])
		layers[i] = layer
	}
	return layers, nil
}

func rootOf(ctx context.Context, layer *images.Layer) (Layer, error) {
	tar, err := layer.Open(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer tar.Close()
	var out Layer
	root, err := verity.LayerRoot(tar, verity.Options{Left: func(about string) {
		out.LeftOut++
		if out.Left == "" {
			out.Left = about
		}
	}})
	out.RootHash = root.String()
	return out, err
}
