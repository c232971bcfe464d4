// SPDX-License-Identifier: Apache-2.0

// Package generatetest helps to test what is made of policies: it makes them from manifests without a registry.
package generatetest

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/imagestest"
	"portcullis/rules/generate"
)

// Images opens stand-ins for the images that a JSON file describes: configuration and accounts by name. A digest in a reference
// is taken to be right, as the stand-in cannot have that of the real image.
func Images(t testing.TB, file string) generate.Images {
	t.Helper()
	return standIns{Store(t, file)}
}

// Store makes the stand-ins of [Images].
func Store(t testing.TB, file string) *imagestest.Store {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var facts struct {
		Images map[string]struct {
			images.Config
			Passwd string `json:"passwd"`
			Group  string `json:"group"`
		}
	}
	if err := json.Unmarshal(raw, &facts); err != nil {
		t.Fatal(err)
	}
	store := imagestest.NewStore()
	for name, f := range facts.Images {
		store.Add(name, imagestest.WithFiles(f.Config, map[string]string{"etc/passwd": f.Passwd, "etc/group": f.Group}))
	}
	return store
}

type standIns struct{ store images.Store }

// Image implements generate.Images.
func (s standIns) Image(ctx context.Context, reference string) (*images.Image, error) {
	name, _, _ := strings.Cut(reference, "@")
	image, err := images.NewOpener([]images.Store{s.store}, images.Options{}).Image(ctx, name)
	if err != nil {
		return nil, err
	}
	image.Reference, err = images.ParseReference(reference)
	return image, err
}
