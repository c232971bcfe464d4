// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
)

// dockerHub is what users, Kubernetes and containerd call the registry that go-containerregistry calls index.docker.io.
const dockerHub = "docker.io"

// repositoryPath is the grammar of the OCI distribution specification, section "Pulling manifests"; the library that parses
// the rest is more lenient than runtimes are.
var repositoryPath = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// Reference names an image in its normalised form. The zero value names none.
type Reference struct {
	Registry   string        // host[:port], "docker.io" when none was written
	Repository string        // path in the registry, "library/" added on docker.io when there is no slash
	Tag        string        // "latest" when neither tag nor digest was written, "" when only a digest was
	Digest     digest.Digest // of a manifest or an index, sha256 only; "" when the reference is a tag alone
}

// ParseReference normalises what a manifest says of an image, such as "nginx", "ghcr.io/a/b:v1" or "a/b:v1@sha256:…".
func ParseReference(s string) (Reference, error) {
	base, sum, pinned := strings.Cut(s, "@")
	tag, err := name.NewTag(base, name.WithDefaultTag("latest"))
	if err != nil {
		return Reference{}, fmt.Errorf("parsing image reference %q: %w", s, err)
	}
	if !repositoryPath.MatchString(tag.RepositoryStr()) {
		return Reference{}, fmt.Errorf("parsing image reference %q: %q is not a repository path", s, tag.RepositoryStr())
	}
	ref := Reference{Registry: tag.RegistryStr(), Repository: tag.RepositoryStr(), Tag: tag.TagStr()}
	if ref.Registry == name.DefaultRegistry {
		ref.Registry = dockerHub
	}
	if !pinned {
		return ref, nil
	}
	// A colon after the last slash is a written tag; without one the "latest" above is only the library's default.
	if !strings.Contains(base[strings.LastIndex(base, "/")+1:], ":") {
		ref.Tag = ""
	}
	ref.Digest = digest.Digest(sum)
	if err := checkDigest(ref.Digest); err != nil {
		return Reference{}, fmt.Errorf("parsing image reference %q: %w", s, err)
	}
	return ref, nil
}

// Name is the reference without tag and digest, such as "docker.io/library/nginx".
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String is the normalised reference, such as "docker.io/library/nginx:latest", the form that the kubelet and containerd
// use too.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// PullName is the name by which containerd knows the image and a guest pulls it: a digest replaces the tag.
func (r Reference) PullName() string {
	if r.Pinned() {
		r.Tag = ""
	}
	return r.String()
}

// Pinned says whether the reference names content, not a tag that can be moved.
func (r Reference) Pinned() bool { return r.Digest != "" }

// WithDigest is the reference pinned to d. A tag is kept for the reader; with a digest present nobody resolves it.
func (r Reference) WithDigest(d digest.Digest) Reference {
	r.Digest = d
	return r
}

// checkDigest accepts sha256 only: it is the one algorithm that every registry, runtime and store agrees on.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: only sha256 is supported", d)
	}
	return nil
}
