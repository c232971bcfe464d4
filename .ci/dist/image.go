// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// platformLayer is the one layer of an image for an architecture.
type platformLayer struct {
	arch string
	tree []entry
}

// toolsConfig runs the tools as nobody.
var toolsConfig = v1.Config{
	User: "65532:65532", WorkingDir: "/work", Env: []string{"PATH=/usr/bin", "HOME=/work"}, Cmd: []string{"policyctl", "--help"},
}

// guestConfig is of files alone.
var guestConfig = v1.Config{}

// toolsRoot is the root filesystem of the tools' image: the tools, the authorities of registries, and room for downloads.
func (r *release) toolsRoot(b *built) []entry {
	root := []entry{
		{path: "tmp", mode: 0o777 | fs.ModeSticky, dir: true}, {path: "work", mode: 0o777 | fs.ModeSticky, dir: true},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, text: authorities()},
		{path: "etc/passwd", mode: 0o644, text: []byte("nonroot:x:65532:65532::/work:/sbin/nologin\n")},
	}
	for _, e := range r.tools(b).tree {
		e.path = "usr/" + e.path
		root = append(root, e)
	}
	return root
}

// authorities are Mozilla's, as Go's cryptography packages hold them; those that are trusted for some names or dates only are
// left out.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes it
		}
	}
	return out.Bytes()
}

// overlay lays policyd down for a guest of an architecture.
func (r *release) overlay(b *built) ([]entry, error) {
	dir := filepath.Join(r.work, "overlay-"+b.arch)
	cmd := exec.Command(filepath.Join(r.source, "images/rootfs/install.sh"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DESTDIR=" + dir, "OVERLAY=yes", "BINDING=required", "POLICYD=" + filepath.Join(b.dir, "policyd"),
		"INIT_SHIM=" + filepath.Join(b.dir, "portcullis-init"), "SBOM=" + filepath.Join(b.dir, "policyd.cdx.json")}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("lay down the overlay: %w", err)
	}
	return folder(dir, ""), nil
}

// image writes an OCI image of all architectures as a tar of its layout.
func (r *release) image(name string, layers []platformLayer, config v1.Config) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, l := range layers {
		image, err := r.platform(l, config)
		if err != nil {
			return fmt.Errorf("%s for %s: %w", name, l.arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: l.arch}}})
	}
	dir := filepath.Join(r.work, name+"-image")
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	tag := map[string]string{"org.opencontainers.image.ref.name": r.version}
	if err := l.AppendIndex(index, layout.WithAnnotations(tag)); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(r.out, fmt.Sprintf("%s-%s-image.tar", name, r.version)))
	if err != nil {
		return err
	}
	defer out.Close()
	return r.write(out, "", folder(dir, ""))
}

func (r *release) platform(l platformLayer, config v1.Config) (v1.Image, error) {
	var text bytes.Buffer
	if err := r.write(&text, "", l.tree); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.time}, CreatedBy: "make dist"}})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created, file.Config = "linux", l.arch, v1.Time{Time: r.time}, config
	file.Config.Labels = map[string]string{"org.opencontainers.image.version": r.version, "org.opencontainers.image.licenses": "Apache-2.0"}
	return mutate.ConfigFile(image, file)
}
