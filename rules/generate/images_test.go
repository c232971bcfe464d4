package generate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/images/imagestest"
	"portcullis/rules/generate"
)

// standIn is what is known of an image, in the form of the shared corpus.
type standIn struct {
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	Volumes    []string
	Passwd     string `json:"passwd"`
	Group      string `json:"group"`
}

// standIns opens images made of facts. A digest in a reference is taken to be
// right: it is that of the real image.
type standIns struct {
	t      testing.TB
	stores *generate.Stores
}

func openStandIns(t testing.TB, file string) standIns {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var facts struct{ Images map[string]standIn }
	if err := json.Unmarshal(raw, &facts); err != nil {
		t.Fatal(err)
	}
	store := imagestest.NewStore()
	for name, f := range facts.Images {
		config := images.Config{User: f.User, Env: f.Env, Entrypoint: f.Entrypoint, Cmd: f.Cmd, WorkingDir: f.WorkingDir, Volumes: f.Volumes}
		store.Add(name, imagestest.WithFiles(config, map[string]string{"etc/passwd": f.Passwd, "etc/group": f.Group}))
	}
	return standIns{t, generate.FromStores([]images.Store{store}, images.Options{})}
}

func (s standIns) Image(ctx context.Context, reference string) (generate.Image, error) {
	name, digest, pinned := strings.Cut(reference, "@")
	image, err := s.stores.Image(ctx, name)
	if err != nil || !pinned {
		return image, err
	}
	return pinnedImage{image, digest}, nil
}

type pinnedImage struct {
	generate.Image
	digest string
}

func (p pinnedImage) Facts() generate.Facts {
	f := p.Image.Facts()
	f.Digest = p.digest
	return f
}

// corpus returns the folder of shared manifests and requests.
func corpus(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PORTCULLIS_CORPUS")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), "..", "shared", "corpus")
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(moduleRoot(t), "..", "..", "shared", "corpus")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the shared corpus is not at %s; set PORTCULLIS_CORPUS", dir)
		}
		fmt.Fprintf(os.Stderr, "SKIPPED %s: the shared corpus is not at %s\n", t.Name(), dir)
		t.Skip("no corpus")
	}
	return dir
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		t.Fatal("no go.mod above the package")
	}
}
