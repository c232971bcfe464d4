// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"portcullis/hostdata/initdata"
	"portcullis/images"
	"portcullis/images/signature"
	"portcullis/internal/version"
	"portcullis/rules"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
	"portcullis/rules/statement"
)

// origins collect what --statement says: what policies were made, and of what.
type origins struct {
	subjects, dependencies []statement.Descriptor
}

// read notes a file that was read.
func (o *origins) read(path string, text []byte) {
	o.dependencies = append(o.dependencies, statement.Descriptor{Name: path, Digest: sha256Of(text)})
}

// manifest notes a manifest, as it was read.
func (o *origins) manifest(path string, m *generate.Manifest) error {
	text, err := m.Text()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	o.read(path, text)
	return nil
}

// made notes a policy, and the initdata document that carries it.
func (o *origins) made(p *generate.Pod, out *generate.Rendered) error {
	o.subjects = append(o.subjects, statement.Descriptor{Name: "policy of " + p.Name(), Digest: sha256Of(out.Text)})
	if out.Annotation != initdata.Annotation {
		return nil
	}
	doc, err := initdata.ParseAnnotation(out.Value)
	if err != nil {
		return fmt.Errorf("write statement: %w", err)
	}
	o.subjects = append(o.subjects, statement.Descriptor{
		Name: "initdata of " + p.Name(), Digest: map[string]string{string(doc.Algorithm()): hex.EncodeToString(doc.Digest())},
	})
	return nil
}

// writeStatement writes the file of --statement.
func (j *job) writeStatement() error {
	if j.flags.statement == "" {
		return nil
	}
	if len(j.origins.subjects) == 0 {
		return usagef("--statement: no policy was made, so there is nothing to state")
	}
	inEffect, err := json.Marshal(j.settings)
	if err != nil {
		return fmt.Errorf("write statement: %w", err)
	}
	held := rules.Text()
	if j.output.Rules != "" {
		held = j.output.Rules
	}
	j.origins.read("settings in effect", inEffect)
	j.origins.read("rules", []byte(held))
	for _, path := range []string{j.flags.issuers, j.flags.images.trustedRoot} {
		if path == "" {
			continue
		}
		text, err := readFile(path)
		if err != nil {
			return fmt.Errorf("write statement: %w", err)
		}
		j.origins.read(path, text)
	}
	parameters, err := j.flags.parameters()
	if err != nil {
		return err
	}
	text, err := statement.New(version.Build(), parameters, j.origins.subjects, j.origins.dependencies).Text()
	if err != nil {
		return err
	}
	return writeFile(j.flags.statement, text)
}

// parameters are the choices that are no files.
func (f *flags) parameters() (statement.Parameters, error) {
	p := statement.Parameters{Platform: f.platform, Form: "full"}
	if f.compact {
		p.Form = "compact"
	}
	for _, name := range f.settings {
		if slices.Contains(settings.DropIns(), name) {
			p.DropIns = append(p.DropIns, name)
		}
	}
	for _, signer := range f.images.keys {
		if signature.IsIdentity(signer) {
			p.SignedBy = append(p.SignedBy, signer)
			continue
		}
		key, err := os.ReadFile(signer)
		if err != nil {
			return p, fmt.Errorf("write statement: %w", err)
		}
		p.SignedBy = append(p.SignedBy, sha256Of(key)["sha256"])
	}
	return p, nil
}

func sha256Of(text []byte) map[string]string {
	sum := sha256.Sum256(text)
	return map[string]string{"sha256": hex.EncodeToString(sum[:])}
}

// noted opens images and notes them. Those that only a machine knows, without a digest, cannot be named.
type noted struct {
	generate.Images
	origins *origins
}

func (n noted) Image(ctx context.Context, reference string) (*images.Image, error) {
	img, err := n.Images.Image(ctx, reference)
	if err == nil && img.Digests.Lock() != "" {
		n.origins.dependencies = append(n.origins.dependencies, statement.Descriptor{
			URI: "oci://" + img.Reference.Name(), Digest: map[string]string{"sha256": img.Digests.Lock().Encoded()},
		})
	}
	return img, err
}
