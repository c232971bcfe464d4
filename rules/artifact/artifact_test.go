// SPDX-License-Identifier: Apache-2.0

package artifact_test

import (
	"bytes"
	"errors"
	"testing"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"

	"portcullis/rules/artifact"
)

func TestAPolicyComesBackAsItWasPushed(t *testing.T) {
	for name, a := range map[string]artifact.Artifact{
		"alone":         {Policy: []byte("package agent_policy\n")},
		"with a bundle": {Policy: []byte("package agent_policy\n"), Bundle: []byte("{}\n")},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			pushed, err := artifact.Push(t.Context(), store, "v1", a)
			if err != nil {
				t.Fatal(err)
			}
			again, err := artifact.Push(t.Context(), store, "v2", a)
			if err != nil || again.Digest != pushed.Digest {
				t.Errorf("pushed again it is %s, was %s: %v", again.Digest, pushed.Digest, err)
			}
			for _, by := range []string{"v1", "v2"} {
				got, manifest, err := artifact.Pull(t.Context(), store, by)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Policy, a.Policy) || !bytes.Equal(got.Bundle, a.Bundle) || manifest.Digest != pushed.Digest {
					t.Errorf("by %s: %+v, manifest %s", by, got, manifest.Digest)
				}
			}
		})
	}
}

func TestWhatIsNoPolicyIsRefused(t *testing.T) {
	store := memory.New()
	policy, err := oras.PushBytes(t.Context(), store, artifact.PolicyType, []byte("package agent_policy\n"))
	if err != nil {
		t.Fatal(err)
	}
	pack := func(tag, artifactType string, o oras.PackManifestOptions) {
		d, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, artifactType, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Tag(t.Context(), d, tag); err != nil {
			t.Fatal(err)
		}
	}
	large := policy
	large.Size = 17 << 20
	one := oras.PackManifestOptions{}
	one.Layers = append(one.Layers, policy)
	pack("another-type", "application/vnd.example", one)
	pack("no-policy", artifact.Type, oras.PackManifestOptions{})
	twice := oras.PackManifestOptions{}
	twice.Layers = append(twice.Layers, policy, policy)
	pack("twice", artifact.Type, twice)
	long := oras.PackManifestOptions{}
	long.Layers = append(long.Layers, large)
	pack("too-long", artifact.Type, long)
	for _, tag := range []string{"another-type", "no-policy", "twice", "too-long"} {
		if _, _, err := artifact.Pull(t.Context(), store, tag); !errors.Is(err, artifact.ErrForm) {
			t.Errorf("%s: %v", tag, err)
		}
	}
	if _, _, err := artifact.Pull(t.Context(), store, "none"); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
}
