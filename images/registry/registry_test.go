// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/images/cache"
	"portcullis/images/registry"
	"portcullis/internal/imagestest"
)

// host is an in-process registry that counts what is asked of it.
type host struct {
	name    string // host:port
	handler http.Handler

	mu     sync.Mutex
	counts map[string]int // "GET blobs/<digest>", "GET manifests/<reference>"
	before func(http.ResponseWriter, *http.Request) (answered bool)
}

func newHost() *host {
	return &host{handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))), counts: map[string]int{}}
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if parts := strings.Split(r.URL.Path, "/"); len(parts) > 3 {
		h.mu.Lock()
		h.counts[r.Method+" "+strings.Join(parts[len(parts)-2:], "/")]++
		h.mu.Unlock()
	}
	if h.before != nil && h.before(w, r) {
		return
	}
	h.handler.ServeHTTP(w, r)
}

func (h *host) gets() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := map[string]int{}
	for k, n := range h.counts {
		if strings.HasPrefix(k, "GET ") {
			got[k] = n
		}
	}
	return got
}

// plain serves h over HTTP, secure over HTTPS.
func (h *host) plain(t *testing.T) *host {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.name = strings.TrimPrefix(s.URL, "http://")
	return h
}

func (h *host) secure(t *testing.T) (*host, *httptest.Server) {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	h.name = strings.TrimPrefix(s.URL, "https://")
	return h, s
}

// push puts all that s holds into a repository, past any authentication.
func (h *host) push(t *testing.T, s *imagestest.Store, repo, tag string, top ocispec.Descriptor) {
	t.Helper()
	do := func(method, path, contentType string, body []byte) {
		r := httptest.NewRequest(method, path, bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.handler.ServeHTTP(w, r)
		if w.Code != http.StatusCreated {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	for d, content := range s.Blobs {
		do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+url.QueryEscape(d.String()), "application/octet-stream", content)
	}
	for d, content := range s.Blobs { // manifests before the index that names them
		if bytes.Contains(content, []byte(`"layers":`)) {
			do("PUT", "/v2/"+repo+"/manifests/"+d.String(), ocispec.MediaTypeImageManifest, content)
		}
	}
	do("PUT", "/v2/"+repo+"/manifests/"+tag, top.MediaType, s.Blobs[top.Digest])
}

// sample is an image for two architectures, one with zstd layers.
func sample() (*imagestest.Store, ocispec.Descriptor) {
	s := imagestest.NewStore()
	amd := imagestest.WithFiles(images.Config{User: "web"}, map[string]string{
		"etc/passwd": "web:x:1000:1000:::\n", "etc/group": "",
	})
	amd.Layers = append(amd.Layers, imagestest.Tar(imagestest.Entry{Name: "app", Content: "hello"}))
	arm := amd
	arm.Compression = imagestest.Zstd
	arm.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	return s, s.AddIndex("", s.Add("", amd), s.Add("", arm))
}

func newStore(t *testing.T, o registry.Options) *registry.Store {
	t.Helper()
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	o.Cache = c
	o.Backoff = time.Millisecond
	s, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read opens the image and everything in it.
func read(t *testing.T, s images.Store, ref string, arch string) (*images.Image, error) {
	t.Helper()
	r, err := images.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := images.Open(t.Context(), s, r, images.Options{Platform: ocispec.Platform{Architecture: arch}})
	if err != nil {
		return nil, err
	}
	id, err := img.Identity(t.Context(), img.Config.User, images.Always)
	if err == nil && id.UID != 1000 {
		t.Errorf("uid %d", id.UID)
	}
	return img, err
}

// drain reads all layers.
func drain(t *testing.T, img *images.Image) {
	for _, l := range img.Layers {
		rc, err := l.Open(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			t.Error(err)
		}
		rc.Close()
	}
}

func TestEachBlobIsPulledOnceAndOnlyWhatIsNeeded(t *testing.T) {
	h := newHost().plain(t)
	made, index := sample()
	h.push(t, made, "team/app", "v1", index)
	var mu sync.Mutex
	last := map[string]registry.Progress{}
	s := newStore(t, registry.Options{Insecure: []string{h.name}, Progress: func(p registry.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last[p.Digest.String()] = p
	}})
	r, err := images.ParseReference(h.name + "/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := images.Open(t.Context(), s, r, images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Digests.Index != index.Digest {
		t.Errorf("index digest %s", img.Digests.Index)
	}
	want := map[string]int{
		"GET manifests/v1": 1, "GET manifests/" + img.Digests.Manifest.String(): 1, "GET blobs/" + img.Digests.Config.String(): 1,
	}
	if got := h.gets(); !maps.Equal(got, want) {
		t.Errorf("to open the image, asked for %v, want %v", got, want)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			img, err := read(t, s, h.name+"/team/app@"+index.Digest.String(), "amd64")
			if err != nil {
				t.Error(err)
				return
			}
			drain(t, img)
		})
	}
	wg.Wait()
	for _, l := range img.Layers {
		want["GET blobs/"+l.Digest.String()] = 1
		if p := last[l.Digest.String()]; p.Done != l.Size || p.Total != l.Size {
			t.Errorf("progress ended at %+v, want %d bytes", p, l.Size)
		}
	}
	if got := h.gets(); !maps.Equal(got, want) {
		t.Errorf("after all was read eight times, asked for %v, want %v", got, want)
	}
	if _, err := read(t, s, h.name+"/team/app:v1", "arm64"); err != nil {
		t.Errorf("arm64 with zstd layers: %v", err)
	}
	if _, err := read(t, s, h.name+"/team/app:v2", "amd64"); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("missing tag: %v, want ErrNotFound", err)
	}
}

func TestPlainHTTPOnlyToNamedHosts(t *testing.T) {
	h := newHost().plain(t)
	made, index := sample()
	h.push(t, made, "app", "latest", index)
	if _, err := read(t, newStore(t, registry.Options{}), h.name+"/app", ""); !errors.Is(err, registry.ErrPlainHTTP) {
		t.Errorf("got %v, want ErrPlainHTTP", err)
	}
	bare, _, _ := strings.Cut(h.name, ":")
	if _, err := read(t, newStore(t, registry.Options{Insecure: []string{bare}}), h.name+"/app", ""); err != nil {
		t.Errorf("named without port: %v", err)
	}
}

func TestCustomCertificateAuthority(t *testing.T) {
	h, server := newHost().secure(t)
	made, index := sample()
	h.push(t, made, "app", "latest", index)
	file := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	roots, err := registry.Roots(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, newStore(t, registry.Options{Roots: roots}), h.name+"/app", ""); err != nil {
		t.Errorf("with the authority: %v", err)
	}
	if _, err := read(t, newStore(t, registry.Options{}), h.name+"/app", ""); err == nil {
		t.Error("without the authority: accepted")
	}
	if err := os.WriteFile(file, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Roots(file); err == nil {
		t.Error("a file without certificates was accepted")
	}
}

func TestMirrorsAreAskedFirstAndPassedOverWhenTheyFail(t *testing.T) {
	made, index := sample()
	origin, good, lacking, broken := newHost().plain(t), newHost().plain(t), newHost().plain(t), newHost().plain(t)
	origin.push(t, made, "team/app", "v1", index)
	good.push(t, made, "cached/team/app", "v1", index)
	broken.push(t, made, "team/app", "v1", index)
	broken.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			// As long as it should be, but something else.
			content := bytes.Clone(made.Blobs[toDigest(r.URL.Path)])
			content[len(content)-1] ^= 1
			w.Write(content)
			return true
		}
		return false
	}
	down := httptest.NewServer(nil)
	down.Close()
	insecure := []string{origin.name, good.name, lacking.name, broken.name, "127.0.0.1"}
	for name, c := range map[string]struct {
		mirrors       []string
		fromOrigin    bool
		manifestsThen int
	}{
		"a good mirror under a prefix": {mirrors: []string{good.name + "/cached"}},
		"one that lacks the image":     {mirrors: []string{lacking.name, good.name + "/cached"}},
		"one that is down":             {mirrors: []string{strings.TrimPrefix(down.URL, "http://"), good.name + "/cached"}},
		"one that serves rubbish":      {mirrors: []string{broken.name, good.name + "/cached"}},
		"none that works":              {mirrors: []string{broken.name, lacking.name}, fromOrigin: true},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(origin.gets())
			s := newStore(t, registry.Options{Insecure: insecure, Mirrors: map[string][]string{origin.name: c.mirrors}, Attempts: 2})
			if _, err := read(t, s, origin.name+"/team/app:v1", ""); err != nil {
				t.Fatal(err)
			}
			if asked := len(origin.gets()) > before; asked != c.fromOrigin {
				t.Errorf("origin was asked: %v, want %v", asked, c.fromOrigin)
			}
		})
	}
}

func TestALostConnectionIsTriedAgain(t *testing.T) {
	made, index := sample()
	h := newHost().plain(t)
	h.push(t, made, "app", "latest", index)
	cut := map[string]bool{}
	var mu sync.Mutex
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || cut[r.URL.Path] {
			return false
		}
		cut[r.URL.Path] = true
		content := made.Blobs[toDigest(r.URL.Path)]
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:len(content)/2])
		return true
	}
	if _, err := read(t, newStore(t, registry.Options{Insecure: []string{h.name}}), h.name+"/app", ""); err != nil {
		t.Error(err)
	}
	if len(cut) == 0 {
		t.Error("no connection was cut")
	}
}

// requireToken makes h ask for a bearer token, which its /token gives for the user's password or identity token.
func requireToken(h *host, secret string) {
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			_, password, _ := r.BasicAuth()
			if r.Method == http.MethodPost && r.PostFormValue("grant_type") == "refresh_token" {
				password = r.PostFormValue("refresh_token")
			}
			if password != secret {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			json.NewEncoder(w).Encode(map[string]string{"token": "good", "access_token": "good"})
			return true
		}
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+h.name+`/token",service="test",scope="repository:app:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestCredentialsFromDockerConfig(t *testing.T) {
	made, index := sample()
	h := newHost().plain(t)
	h.push(t, made, "app", "latest", index)
	requireToken(h, "s3cret")
	dir := t.TempDir()
	helper := "#!/bin/sh\necho '{\"ServerURL\":\"" + h.name + "\",\"Username\":\"u\",\"Secret\":\"s3cret\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-fixed"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	basic := base64.StdEncoding.EncodeToString([]byte("u:s3cret"))
	for name, c := range map[string]struct {
		config  string
		allowed bool
	}{
		"password":                  {`{"auths":{"` + h.name + `":{"auth":"` + basic + `"}}}`, true},
		"identity token":            {`{"auths":{"` + h.name + `":{"identitytoken":"s3cret"}}}`, true},
		"registry token":            {`{"auths":{"` + h.name + `":{"registrytoken":"good"}}}`, true},
		"credential helper":         {`{"credHelpers":{"` + h.name + `":"fixed"}}`, true},
		"store":                     {`{"credsStore":"fixed"}`, true},
		"repository before host":    {`{"auths":{"` + h.name + `/app":{"auth":"` + basic + `"},"` + h.name + `":{"auth":"dTp4"}}}`, true},
		"wrong password":            {`{"auths":{"` + h.name + `":{"auth":"dTp4"}}}`, false},
		"credentials for elsewhere": {`{"auths":{"example.com":{"auth":"` + basic + `"}}}`, false},
		"helper that is not there":  {`{"credHelpers":{"` + h.name + `":"absent"}}`, false},
		"empty":                     {`{}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			keys, err := registry.DockerConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = read(t, newStore(t, registry.Options{Insecure: []string{h.name}, Keychain: keys}), h.name+"/app", "")
			if (err == nil) != c.allowed {
				t.Errorf("got %v, want allowed %v", err, c.allowed)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
	if _, err := registry.DockerConfig(filepath.Join(dir, "absent.json")); err != nil {
		t.Errorf("absent file: %v", err)
	}
	file := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.DockerConfig(file); err == nil {
		t.Error("a file that cannot be parsed was accepted")
	}
}

func TestACacheIsRequired(t *testing.T) {
	if _, err := registry.New(registry.Options{}); err == nil {
		t.Error("accepted")
	}
}

func toDigest(path string) digest.Digest { return digest.Digest(path[strings.LastIndex(path, "/")+1:]) }
