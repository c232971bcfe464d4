// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/images/layout"
	"portcullis/internal/imagestest"
)

func ref(t *testing.T, s string) images.Reference {
	t.Helper()
	r, err := images.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sample(user string) imagestest.Image {
	return imagestest.WithFiles(images.Config{User: user}, map[string]string{
		"etc/passwd": "web:x:1000:1000:::\n", "etc/group": "",
	})
}

func openLayout(t *testing.T, dir string) *layout.Store {
	t.Helper()
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// annotate rewrites the layout's index so that its manifests have the annotations given, in order.
func annotate(t *testing.T, dir string, annotations ...map[string]string) {
	t.Helper()
	file := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for n := range index.Manifests {
		index.Manifests[n].Annotations = annotations[n]
	}
	if raw, err = json.Marshal(index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestImagesAreFoundByName(t *testing.T) {
	const refName, ctrName = ocispec.AnnotationRefName, "io.containerd.image.name"
	for name, c := range map[string]struct {
		annotations []map[string]string // of two images, users "1" and "2"
		ask         []string
		users       []string // "" means not found, "!" an error
	}{
		"whole names": {
			[]map[string]string{{refName: "docker.io/library/app:v1"}, {refName: "ghcr.io/x/y:v2"}},
			[]string{"app:v1", "ghcr.io/x/y:v2", "app:v2", "x/y:v2"}, []string{"1", "2", "", ""},
		},
		"familiar names": {[]map[string]string{{refName: "app:v1"}, {refName: "app"}}, []string{"app:v1", "app"}, []string{"1", "2"}},
		"containerd's annotation": {
			[]map[string]string{{refName: "v1", ctrName: "docker.io/library/app:v1"}, {refName: "v1", ctrName: "quay.io/app:v1"}},
			[]string{"app:v1", "quay.io/app:v1"}, []string{"1", "2"},
		},
		"tags alone": {[]map[string]string{{refName: "v1"}, {refName: "v2"}}, []string{"app:v1", "app:v2", "app:v3"}, []string{"1", "2", ""}},
		"a bare tag is of one image only": {
			[]map[string]string{{refName: "latest"}, nil}, []string{"app", "other", "app"}, []string{"1", "!", "1"},
		},
		"one name for two images": {[]map[string]string{{refName: "app:v1"}, {refName: "app:v1"}}, []string{"app:v1"}, []string{"!"}},
		"no annotations":          {[]map[string]string{nil, nil}, []string{"app"}, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			made, dir := imagestest.NewStore(), t.TempDir()
			made.Add("a", sample("1"))
			made.Add("b", sample("2"))
			if err := made.WriteLayout(dir); err != nil {
				t.Fatal(err)
			}
			annotate(t, dir, c.annotations...)
			s := openLayout(t, dir)
			for n, ask := range c.ask {
				img, err := images.Open(t.Context(), s, ref(t, ask), images.Options{})
				switch want := c.users[n]; {
				case want == "":
					if !errors.Is(err, images.ErrNotFound) {
						t.Errorf("%s: %v, want ErrNotFound", ask, err)
					}
				case want == "!":
					if err == nil || errors.Is(err, images.ErrNotFound) {
						t.Errorf("%s: %v, want an error", ask, err)
					}
				case err != nil || img.Config.User != want:
					t.Errorf("%s: %v, want the image of user %s", ask, err, want)
				}
			}
		})
	}
}

func TestLayoutGivesDigestsAndPinnedImages(t *testing.T) {
	made, dir := imagestest.NewStore(), t.TempDir()
	manifest := made.Add("", sample("web"))
	index := made.AddIndex("app:v1", manifest)
	if err := made.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
	s := openLayout(t, dir)
	for _, r := range []images.Reference{
		ref(t, "app:v1"), ref(t, "app").WithDigest(index.Digest), ref(t, "app").WithDigest(manifest.Digest),
	} {
		img, err := images.Open(t.Context(), s, r, images.Options{})
		if err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		if img.Digests.Manifest != manifest.Digest || r.Digest != manifest.Digest && img.Digests.Index != index.Digest {
			t.Errorf("%s: %+v", r, img.Digests)
		}
		if id, err := img.Identity(t.Context(), "web", images.WhenNamed); err != nil || id.UID != 1000 {
			t.Errorf("%s: %+v, %v", r, id, err)
		}
	}
	absent := ref(t, "app").WithDigest(digest.FromString("absent"))
	if _, err := images.Open(t.Context(), s, absent, images.Options{}); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	blob := filepath.Join(dir, "blobs/sha256", manifest.Digest.Encoded())
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", blob); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Open(t.Context(), s, ref(t, "app:v1"), images.Options{}); err == nil {
		t.Error("a link out of the layout was followed")
	}
}

func TestBrokenLayoutsAreRefused(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"no marker": func(d string) error { return os.Remove(filepath.Join(d, "oci-layout")) },
		"other version": func(d string) error {
			return os.WriteFile(filepath.Join(d, "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o600)
		},
		"no index":   func(d string) error { return os.Remove(filepath.Join(d, "index.json")) },
		"index cut":  func(d string) error { return os.Truncate(filepath.Join(d, "index.json"), 20) },
		"index huge": func(d string) error { return os.Truncate(filepath.Join(d, "index.json"), 1<<30) },
		"index a directory": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "index.json")), os.Mkdir(filepath.Join(d, "index.json"), 0o700))
		},
	} {
		dir := t.TempDir()
		if err := imagestest.NewStore().WriteLayout(dir); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := layout.Open(dir); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := layout.Open(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("absent: opened")
	}
}

// pack makes a tar of a directory.
func pack(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

func openArchive(t *testing.T, file string) layout.Archive {
	t.Helper()
	a, err := layout.OpenArchive(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestOCIArchive(t *testing.T) {
	made, dir := imagestest.NewStore(), t.TempDir()
	manifest := made.Add("app:v1", sample("web"))
	if err := made.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
	img, err := images.Open(t.Context(), openArchive(t, pack(t, dir)), ref(t, "app:v1"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := img.Identity(t.Context(), "web", images.WhenNamed)
	if err != nil || id.UID != 1000 || img.Digests.Manifest != manifest.Digest {
		t.Errorf("%+v, %v, %+v", id, err, img.Digests)
	}
}

// dockerSave writes layers, which share their first, as docker save of old did: a later equal layer is a link.
func dockerSave(t *testing.T) string {
	t.Helper()
	layers := sample("").Layers
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Config:   ocispec.ImageConfig{User: "web"},
		RootFS:   ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromBytes(layers[0]), digest.FromBytes(layers[0])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := imagestest.Tar(
		imagestest.Entry{Name: "a/layer.tar", Content: string(layers[0])},
		imagestest.Entry{Name: "b/layer.tar", Type: tar.TypeSymlink, Link: "../a/layer.tar"},
		imagestest.Entry{Name: "config.json", Content: string(config)},
		imagestest.Entry{Name: "manifest.json", Content: `[{"Config":"config.json","RepoTags":["app:v1"],"Layers":["a/layer.tar","b/layer.tar"]}]`},
	)
	file := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDockerArchiveHasNoManifestDigest(t *testing.T) {
	a := openArchive(t, dockerSave(t))
	img, err := images.Open(t.Context(), a, ref(t, "docker.io/library/app:v1"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Digests.Lock() != "" || img.Digests.Config == "" || len(img.Layers) != 2 {
		t.Errorf("%+v, %d layers", img.Digests, len(img.Layers))
	}
	if id, err := img.Identity(t.Context(), img.Config.User, images.WhenNamed); err != nil || id.UID != 1000 {
		t.Errorf("%+v, %v", id, err)
	}
	for _, absent := range []string{"app:v2", "app@" + digest.FromString("x").String()} {
		if _, err := images.Open(t.Context(), a, ref(t, absent), images.Options{}); !errors.Is(err, images.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", absent, err)
		}
	}
}

func TestDockerArchiveOfAnotherTool(t *testing.T) {
	img, err := mutate.Config(empty.Image, v1.Config{User: "7"})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	got, err := images.Open(t.Context(), openArchive(t, file), ref(t, "app:v1"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.ConfigName()
	if err != nil || got.Digests.Config.String() != want.String() {
		t.Errorf("config %s, want %s, %v", got.Digests.Config, want, err)
	}
	if diff := cmp.Diff("7", got.Config.User); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenArchivesAreRefused(t *testing.T) {
	whole, err := os.ReadFile(dockerSave(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"empty":        nil,
		"cut":          whole[:700],
		"compressed":   {0x1f, 0x8b, 8, 0},
		"no layer":     imagestest.Tar(imagestest.Entry{Name: "manifest.json", Content: `[{"Config":"x","Layers":[]}]`}),
		"link to self": imagestest.Tar(imagestest.Entry{Name: "manifest.json", Type: tar.TypeSymlink, Link: "manifest.json"}),
		"not json":     imagestest.Tar(imagestest.Entry{Name: "manifest.json", Content: strings.Repeat("[", 100)}),
	} {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := layout.OpenArchive(file); err == nil {
			t.Errorf("%s: opened", name)
			a.Close()
		}
	}
}

func BenchmarkTenImagesFromALayout(b *testing.B) {
	made, dir := imagestest.NewStore(), b.TempDir()
	refs := make([]images.Reference, 10)
	for n := range refs {
		name := "app" + string(rune('a'+n))
		made.Add(name, sample(name))
		var err error
		if refs[n], err = images.ParseReference(name); err != nil {
			b.Fatal(err)
		}
	}
	if err := made.WriteLayout(dir); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := layout.Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range refs {
			img, err := images.Open(b.Context(), s, r, images.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := img.Identity(b.Context(), "web", images.WhenNamed); err != nil {
				b.Fatal(err)
			}
		}
		s.Close()
	}
}

func TestWhatIsNotThereIsNamedBesideWhatIs(t *testing.T) {
	made, dir := imagestest.NewStore(), t.TempDir()
	made.Add("a", sample("1"))
	made.Add("b", sample("2"))
	if err := made.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
	for want, annotations := range map[string][]map[string]string{
		`it has "quay.io/app:v1", "v2"`: {{"io.containerd.image.name": "quay.io/app:v1"}, {ocispec.AnnotationRefName: "v2"}},
		"it names none; annotate its manifests with whole image names as " + ocispec.AnnotationRefName: {nil, nil},
	} {
		annotate(t, dir, annotations...)
		if _, err := images.Open(t.Context(), openLayout(t, dir), ref(t, "nobody"), images.Options{}); !strings.HasSuffix(fmt.Sprint(err), want) {
			t.Errorf("%v, want ... %s", err, want)
		}
	}
	if _, err := layout.Open(t.TempDir()); !strings.HasSuffix(fmt.Sprint(err), "it is none: there is no file oci-layout in it") {
		t.Errorf("a folder that is no layout: %v", err)
	}
}
