// SPDX-License-Identifier: Apache-2.0

// Package registry makes the lab's stub images and serves them to containerd as a registry would.
package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Image is a stub: a configuration as real images have it, and one layer that holds the two account files or nothing.
type Image struct {
	Name          string // host/path:tag
	Config        Config
	Passwd, Group string
}

// Config is the part of an image's configuration that a container runtime looks at.
type Config struct {
	User         string              `json:"User,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// PauseImage is the node's pause image in every combination.
const PauseImage = "registry.k8s.io/pause:3.10"

// Images are the images that manifests may name.
func Images() []Image {
	set := func(names ...string) map[string]struct{} {
		m := map[string]struct{}{}
		for _, n := range names {
			m[n] = struct{}{}
		}
		return m
	}
	return []Image{
		{Name: PauseImage, Config: Config{User: "65535:65535", Env: []string{path}, Entrypoint: []string{"/pause"}, WorkingDir: "/"}},
		{Name: "docker.io/library/busybox:1.36", Config: Config{Env: []string{path}, Cmd: []string{"sh"}}},
		{Name: "docker.io/library/nginx:1.27", Config: Config{Env: []string{path, "NGINX_VERSION=1.27.4", "NJS_VERSION=0.8.9"},
			Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx", "-g", "daemon off;"}, ExposedPorts: set("80/tcp"), StopSignal: "SIGQUIT"}},
		{Name: "docker.io/library/postgres:16", Config: Config{Env: []string{path, "PGDATA=/var/lib/postgresql/data", "LANG=en_US.utf8"},
			Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"postgres"}, Volumes: set("/var/lib/postgresql/data"), StopSignal: "SIGINT"}},
		{Name: "docker.io/library/noenv:1", Config: Config{Entrypoint: []string{"/bin/sleep", "36000"}}},
		{Name: "ghcr.io/example/app:v1", Config: Config{User: "1000", Env: []string{path, "APP_MODE=image", "HOME=/srv/app", "LANG=C.UTF-8", "EMPTY="},
			Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve", "--port=8080"}, WorkingDir: "/srv/app", Volumes: set("/data")}},
		{Name: "ghcr.io/example/usergroup:v1", Config: Config{User: "1000:2000", Env: []string{path}, Entrypoint: []string{"/bin/app"}, WorkingDir: "/srv/app"}},
		{Name: "ghcr.io/example/named:v1", Config: Config{User: "app", Env: []string{path}, Entrypoint: []string{"/bin/app"}, WorkingDir: "/home/app"}},
		{Name: "ghcr.io/example/terminal:v1", Config: Config{Env: []string{path, "TERM=dumb", "HOSTNAME=image", "HOME=/nowhere"}, Cmd: []string{"/bin/app"}}},
		{Name: "ghcr.io/example/empty-entrypoint:v1", Config: Config{Env: []string{path}, Entrypoint: []string{""}, Cmd: []string{"/bin/app"}}},
		{Name: "ghcr.io/example/accounts:v1", Config: Config{User: "app", Env: []string{path}, Entrypoint: []string{"/bin/app"}, WorkingDir: "/home/app"},
			Passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1234:4321:app:/home/app:/bin/sh\nother:x:1235:1235::/:/bin/sh\n",
			Group:  "root:x:0:\napp:x:4321:\nextra:x:5000:app\nmore:x:5001:app,other\n"},
	}
}

// blob is one piece of content and its digest, "sha256:…".
type blob struct {
	media, digest string
	content       []byte
}

func newBlob(media string, content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{media, "sha256:" + hex.EncodeToString(sum[:]), content}
}

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// build gives the image's manifest first, then its configuration and layer. The same image always gives the same bytes.
func (i Image) build() ([]blob, error) {
	plain, err := i.layer()
	if err != nil {
		return nil, fmt.Errorf("layer of %s: %w", i.Name, err)
	}
	packed, err := pack(plain)
	if err != nil {
		return nil, fmt.Errorf("layer of %s: %w", i.Name, err)
	}
	layer := newBlob(mediaLayer, packed)
	content, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": i.Config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{newBlob("", plain).digest}}})
	if err != nil {
		return nil, err
	}
	config := newBlob(mediaConfig, content)
	content, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaManifest, "config": config.descriptor(), "layers": []any{layer.descriptor()}})
	if err != nil {
		return nil, err
	}
	return []blob{newBlob(mediaManifest, content), config, layer}, nil
}

func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.media, "digest": b.digest, "size": len(b.content)}
}

func (i Image) layer() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if i.Passwd != "" {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
		for _, f := range [][2]string{{"etc/group", i.Group}, {"etc/passwd", i.Passwd}} {
			if err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), ModTime: time.Unix(0, 0)}); err != nil {
				return nil, err
			}
			if _, err := io.WriteString(w, f[1]); err != nil {
				return nil, err
			}
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func pack(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

// WriteLayout writes all images as a gzipped tar of an OCI layout (folder layout/), the same bytes every time.
func WriteLayout(out io.Writer) error {
	files := map[string][]byte{"layout/oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var manifests []any
	for _, i := range Images() {
		blobs, err := i.build()
		if err != nil {
			return err
		}
		for _, b := range blobs {
			files["layout/blobs/sha256/"+b.digest[len("sha256:"):]] = b.content
		}
		d := blobs[0].descriptor()
		d["annotations"] = map[string]string{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": i.Name}
		manifests = append(manifests, d)
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests})
	if err != nil {
		return err
	}
	files["layout/index.json"] = index
	return writeTar(out, files)
}

func writeTar(out io.Writer, files map[string][]byte) error {
	packed := gzip.NewWriter(out)
	w := tar.NewWriter(packed)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(files[n])), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := w.Write(files[n]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return packed.Close()
}
