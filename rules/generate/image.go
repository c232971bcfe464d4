package generate

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrReference is wrapped by an Images for what is no name of an image.
var ErrReference = errors.New("is no name of an image")

// Images answers what the generator asks of images.
type Images interface {
	// Image opens the image that a manifest names.
	Image(ctx context.Context, reference string) (Image, error)
}

// Image is an image that a container runs.
type Image interface {
	Facts() Facts
	// Identity resolves "user" or "user:group", names or numbers, against the
	// image's own accounts; it may read layers.
	Identity(ctx context.Context, user string) (Identity, error)
	// Layers returns the layers with their dm-verity root hashes, lowest first;
	// it reads them all.
	Layers(ctx context.Context) ([]Layer, error)
}

// Facts are what is known of an image without reading its layers.
type Facts struct {
	Name       string // normalised repository, such as "docker.io/library/nginx"
	Tag        string // "" when the reference has only a digest
	Digest     string // "sha256:…" when the reference has it, else ""
	Lock       string // "sha256:…" that the reference stands for now, "" when unknown
	User       string // "user[:group]", "" for root
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	Volumes    []string
}

// Identity is who a process runs as, by the image's accounts.
type Identity struct {
	UID, GID       uint32
	AdditionalGIDs []uint32
}

// Layer is a layer of an image on a block device.
type Layer struct {
	ChainID  string // OCI chain id of this layer and those below, "sha256:…"
	RootHash string // dm-verity, lower-case hex
	LeftOut  int    // entries that the guest's file system cannot show
	Left     string // what the first of them is, in words
}

// Reference returns the name by which containerd knows the image and the guest
// pulls it: a digest replaces the tag.
func (f Facts) Reference() string {
	if f.Digest != "" {
		return f.Name + "@" + f.Digest
	}
	return f.Name + ":" + f.Tag
}

// locked returns the reference of a manifest with the digest it stands for.
func locked(reference string, f Facts) (string, error) {
	if f.Digest != "" || strings.Contains(reference, "@") {
		return reference, nil
	}
	if f.Lock == "" {
		return "", fmt.Errorf("the digest of %s is not known where the image comes from", reference)
	}
	return reference + "@" + f.Lock, nil
}
