// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"

	"portcullis/images"
	"portcullis/images/cache"
	"portcullis/images/layout"
	"portcullis/images/registry"
	"portcullis/internal/emulator"
)

// imageStores are the places where images are looked for.
type imageStores struct {
	emulator.Stores
	closers []func() error
}

// Close closes them all. They were only read.
func (s *imageStores) Close() error {
	var all []error
	for _, c := range s.closers {
		all = append(all, c())
	}
	return errors.Join(all...)
}

func (s *imageStores) add(store images.Store, closer func() error) {
	s.Stores, s.closers = append(s.Stores, store), append(s.closers, closer)
}

// openStores opens layouts and archives, and the registries last, with the credentials of docker.
func openStores(layouts, archives []string) (_ *imageStores, err error) {
	s := &imageStores{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, dir := range layouts {
		store, err := layout.Open(dir)
		if err != nil {
			return nil, err
		}
		s.add(store, store.Close)
	}
	for _, file := range archives {
		store, err := layout.OpenArchive(file)
		if err != nil {
			return nil, err
		}
		s.add(store, store.Close)
	}
	remote, closer, err := registries()
	if err != nil {
		return nil, err
	}
	s.add(remote, closer)
	return s, nil
}

func registries() (images.Store, func() error, error) {
	dir, err := os.MkdirTemp("", "policyctl-")
	if err != nil {
		return nil, nil, err
	}
	downloads, err := cache.Open(dir)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	closeAll := func() error { return errors.Join(downloads.Close(), os.RemoveAll(dir)) }
	o := registry.Options{Proxy: http.ProxyFromEnvironment, UserAgent: "policyctl", Cache: downloads}
	if o.Keychain, err = registry.DockerConfig(dockerConfig()); err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	store, err := registry.New(o)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return store, closeAll, nil
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
