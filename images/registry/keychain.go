// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"portcullis/internal/strictjson"
)

// DockerConfig takes credentials from a Docker configuration file: passwords, identity tokens, registry tokens, and the
// credential helpers that it names, which are run from the PATH. A file that is not there holds none; one that cannot be
// read or parsed is an error, and so is a helper that fails.
func DockerConfig(file string) (authn.Keychain, error) {
	config := configfile.New(file)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return authn.NewMultiKeychain(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading registry credentials: %w", err)
	}
	if err = strictjson.Check(text); err == nil {
		err = config.LoadFromReader(bytes.NewReader(text))
	}
	if err != nil {
		return nil, fmt.Errorf("reading registry credentials: %s: %w", file, err)
	}
	return dockerKeychain{config}, nil
}

type dockerKeychain struct{ config *configfile.ConfigFile }

// Resolve prefers credentials of the repository to those of its registry.
func (k dockerKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, key := range []string{target.String(), target.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		c, err := k.config.GetAuthConfig(key)
		if err != nil {
			return nil, fmt.Errorf("registry credentials for %s: %w", key, err)
		}
		c.ServerAddress = "" // filled in even when nothing was found
		if c != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{
				Username: c.Username, Password: c.Password, Auth: c.Auth,
				IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}
