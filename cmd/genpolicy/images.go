// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/pflag"

	"portcullis/images"
	"portcullis/images/cache"
	"portcullis/images/containerd"
	"portcullis/images/layout"
	"portcullis/images/registry"
	"portcullis/images/signature"
	"portcullis/rules/generate"
)

// imageFlags say where images come from.
type imageFlags struct {
	layouts, archives []string
	containerd        string
	insecure, mirrors []string
	caFile, arch      string
	useCache          bool
	cacheDir          string
	keys              []string // files, or identities
	trustedRoot       string
}

// containerdSocket is where containerd listens by default; usualSocket stands for it on the command line.
const (
	containerdSocket = "/var/run/containerd/containerd.sock"
	usualSocket      = "usual"
)

func (f *imageFlags) add(set *pflag.FlagSet) {
	set.StringArrayVar(&f.layouts, "oci-layout", nil, "take images from the OCI layout in `DIR` first (repeatable)")
	set.StringArrayVar(&f.archives, "docker-archive", nil, "take images from the archive `FILE` of docker save, or of an OCI layout, first (repeatable)")
	set.StringVarP(&f.containerd, "containerd-socket-path", "d", "",
		"take images from the containerd at `SOCKET` instead of registries, "+containerdSocket+" by default")
	set.Lookup("containerd-socket-path").NoOptDefVal = usualSocket
	set.StringArrayVar(&f.insecure, "insecure-registry", nil, "`HOST[:PORT]` that may be asked in plain HTTP, as this machine may (repeatable)")
	set.StringArrayVar(&f.mirrors, "registry-mirror", nil, "`REGISTRY=HOST` to ask before the registry (repeatable)")
	set.StringVar(&f.caFile, "registry-ca", "", "PEM `FILE` of certificate authorities to trust beside the system's")
	set.StringVar(&f.arch, "arch", "amd64", "`ARCH` of the images, such as arm64 or linux/arm64")
	set.BoolVarP(&f.useCache, "use-cached-files", "u", false, "keep what is downloaded in the user's cache folder")
	set.StringArrayVar(&f.keys, "verify-images", nil,
		"only images that cosign signed with the key whose public half is in the PEM file `KEY`, or for issuer=URL,identity=NAME"+
			" (repeatable: any of them); implies --require-digests")
	set.StringVar(&f.trustedRoot, "trusted-root", "", "Sigstore's trusted root `FILE`, for identities of --verify-images")
	set.StringVar(&f.cacheDir, "layers-cache-file-path", "", "keep what is downloaded in the folder `DIR`")
}

// sources are opened image stores.
type sources struct {
	images  generate.Images
	closers []func() error
}

func (s *sources) Close() error {
	var all []error
	for _, c := range s.closers {
		all = append(all, c())
	}
	return errors.Join(all...)
}

// open opens the stores that the flags name. Registries are not asked yet.
func (f *imageFlags) open(stderr io.Writer) (_ *sources, err error) {
	platform, err := images.ParsePlatform(f.arch)
	if err != nil {
		return nil, usagef("--arch: %v", err)
	}
	mirrors, err := f.mirrorHosts()
	if err != nil {
		return nil, err
	}
	s := &sources{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	var stores []images.Store
	for _, dir := range f.layouts {
		store, err := layout.Open(dir)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, store.Close)
		stores = append(stores, store)
	}
	for _, file := range f.archives {
		store, err := layout.OpenArchive(file)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, store.Close)
		stores = append(stores, store)
	}
	last, err := f.remote(s, mirrors, stderr)
	if err != nil {
		return nil, err
	}
	stores = append(stores, last)
	opener := images.NewOpener(stores, images.Options{Platform: platform})
	s.images = opener
	if f.trustedRoot != "" && !slices.ContainsFunc(f.keys, signature.IsIdentity) {
		return nil, usagef("--trusted-root is for identities: nothing is verified without --verify-images issuer=URL,identity=NAME")
	}
	if len(f.keys) > 0 {
		signers, err := f.signers()
		if err != nil {
			return nil, err
		}
		s.images = signature.NewOpener(opener, stores, signers)
	}
	return s, nil
}

// signers reads --verify-images.
func (f *imageFlags) signers() (signature.Signers, error) {
	var signers signature.Signers
	var trusted *root.TrustedRoot
	for _, text := range f.keys {
		if !signature.IsIdentity(text) {
			signer, err := publicKey(text)
			if err != nil {
				return nil, err
			}
			signers = append(signers, signer)
			continue
		}
		if trusted == nil {
			var err error
			if trusted, err = f.rootOfTrust(); err != nil {
				return nil, err
			}
		}
		signer, err := signature.NewIdentity(text, trusted)
		if err != nil {
			return nil, usagef("--verify-images: %v", err)
		}
		signers = append(signers, signer)
	}
	return signers, nil
}

func publicKey(file string) (signature.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--verify-images: %w", err)
	}
	key, err := signature.ParseKey(text)
	if err != nil {
		return nil, usagef("--verify-images %s: %v", file, err)
	}
	return signature.NewKey(key)
}

// rootOfTrust reads --trusted-root. It is never fetched: whoever answers would say whom to trust.
func (f *imageFlags) rootOfTrust() (*root.TrustedRoot, error) {
	if f.trustedRoot == "" {
		return nil, usagef("--verify-images issuer=...: an identity needs --trusted-root FILE, such as cosign trusted-root create writes")
	}
	trusted, err := root.NewTrustedRootFromPath(f.trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root %s: %w", f.trustedRoot, err)
	}
	if len(trusted.FulcioCertificateAuthorities()) == 0 {
		return nil, usagef("--trusted-root %s: it names no certificate authority", f.trustedRoot)
	}
	return trusted, nil
}

// remote opens containerd or the registries.
func (f *imageFlags) remote(s *sources, mirrors map[string][]string, stderr io.Writer) (images.Store, error) {
	if f.containerd != "" {
		socket := f.containerd
		if socket == usualSocket {
			socket = containerdSocket
		}
		store, err := containerd.New(socket, containerd.Namespace)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, store.Close)
		return store, nil
	}
	return &lazyRegistry{flags: f, sources: s, mirrors: mirrors, stderr: stderr}, nil
}

// mirrorHosts reads --registry-mirror: hosts by registry.
func (f *imageFlags) mirrorHosts() (map[string][]string, error) {
	hosts := map[string][]string{}
	for _, m := range f.mirrors {
		name, host, ok := strings.Cut(m, "=")
		if !ok || name == "" || host == "" {
			return nil, usagef("--registry-mirror %q is not REGISTRY=HOST", m)
		}
		hosts[name] = append(hosts[name], host)
	}
	return hosts, nil
}

// registry opens the registries with the user's credentials.
func (f *imageFlags) registry(s *sources, mirrors map[string][]string, stderr io.Writer) (images.Store, error) {
	// Nobody on the network is between this machine and itself.
	plain := append([]string{"localhost", "127.0.0.1", "::1"}, f.insecure...)
	o := registry.Options{Insecure: plain, Mirrors: mirrors, Proxy: http.ProxyFromEnvironment, UserAgent: "genpolicy"}
	var err error
	if f.caFile != "" {
		if o.Roots, err = registry.Roots(f.caFile); err != nil {
			return nil, err
		}
	}
	if o.Keychain, err = registry.DockerConfig(dockerConfig()); err != nil {
		return nil, err
	}
	if o.Cache, err = f.cache(s); err != nil {
		return nil, err
	}
	o.Progress = progress(stderr)
	return registry.New(o)
}

// cache opens the folder for downloads: a temporary one unless it is to be kept.
func (f *imageFlags) cache(s *sources) (*cache.Dir, error) {
	dir := f.cacheDir
	switch {
	case dir != "":
	case f.useCache:
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find cache folder: %w", err)
		}
		dir = filepath.Join(base, "genpolicy")
	default:
		made, err := os.MkdirTemp("", "genpolicy-")
		if err != nil {
			return nil, fmt.Errorf("make folder for downloads: %w", err)
		}
		s.closers = append(s.closers, func() error { return os.RemoveAll(made) })
		dir = made
	}
	opened, err := cache.Open(dir)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, opened.Close)
	return opened, nil
}

func dockerConfig() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker", "config.json")
}

// lazyRegistry opens the registries at the first image that is nowhere else, so
// that nobody needs credentials or a cache who has all images at hand.
type lazyRegistry struct {
	flags   *imageFlags
	sources *sources
	mirrors map[string][]string
	stderr  io.Writer
	opened  images.Store
}

func (l *lazyRegistry) Resolve(ctx context.Context, ref images.Reference) (images.Target, error) {
	if l.opened == nil {
		store, err := l.flags.registry(l.sources, l.mirrors, l.stderr)
		if err != nil {
			return images.Target{}, err
		}
		l.opened = store
	}
	return l.opened.Resolve(ctx, ref)
}

func (l *lazyRegistry) Fetch(ctx context.Context, ref images.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	return l.opened.Fetch(ctx, ref, d)
}
