// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"portcullis/internal/atomicfile"
	"portcullis/rules/artifact"
)

func newPush() *cobra.Command {
	var signed string
	cmd := &cobra.Command{
		Use:   "push REFERENCE POLICY",
		Short: "Store a policy in a registry",
		Long: `Store POLICY, a policy or a manifest with one in its annotation, in a registry as an OCI artifact under REFERENCE, such as
registry.example/policies/shop:v3, and print the reference with its digest. The same policy has the same digest. What no guest takes is
refused. Credentials are those of docker login; a registry on this machine is asked in plain HTTP.`,
		Example: `  policyctl push registry.example/policies/shop:v3 shop.yaml --statement shop.sigstore.json`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, err := openRepository(args[0])
			if err != nil {
				return err
			}
			b, _, err := digestSource{path: args[1]}.read(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			a := artifact.Artifact{Policy: b.policy}
			if signed != "" {
				if _, a.Bundle, err = readText(signed, nil); err != nil {
					return fmt.Errorf("read statement: %w", err)
				}
			}
			made, err := artifact.Push(cmd.Context(), repository, repository.Reference.ReferenceOrDefault(), a)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s/%s@%s\n", repository.Reference.Registry, repository.Reference.Repository, made.Digest)
			return err
		},
	}
	cmd.Flags().StringVar(&signed, "statement", "", "store this signed statement, a `file`, beside it")
	return cmd
}

func newPull() *cobra.Command {
	var o struct{ output, statement string }
	cmd := &cobra.Command{
		Use:   "pull REFERENCE",
		Short: "Read a policy from a registry",
		Long: `Read the policy that push stored under REFERENCE, a tag or a digest, and print it. A tag means what the registry says; only a digest
names one policy. policyctl statement verify says who stands behind it.`,
		Example: `  policyctl pull registry.example/policies/shop:v3 --output shop.rego --statement shop.sigstore.json
  policyctl statement verify shop.sigstore.json --key cosign.pub shop.rego`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, err := openRepository(args[0])
			if err != nil {
				return err
			}
			a, _, err := artifact.Pull(cmd.Context(), repository, repository.Reference.ReferenceOrDefault())
			if errors.Is(err, artifact.ErrForm) || errors.Is(err, artifact.ErrNotFound) {
				return &exitError{exitNo, err}
			}
			if err != nil {
				return err
			}
			if o.statement != "" {
				if a.Bundle == nil {
					return &exitError{exitNo, fmt.Errorf("%s has no signed statement", args[0])}
				}
				if err := atomicfile.Write(o.statement, a.Bundle, 0o644); err != nil {
					return err
				}
			}
			return writeOutput(o.output, cmd.OutOrStdout(), a.Policy)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write the policy to this `file`")
	cmd.Flags().StringVar(&o.statement, "statement", "", "write the signed statement to this `file`")
	return cmd
}

// writeOutput writes to a file, or to out where none is named.
func writeOutput(path string, out io.Writer, text []byte) error {
	if path == "" {
		_, err := out.Write(text)
		return err
	}
	return atomicfile.Write(path, text, 0o644)
}

// openRepository opens a repository of a registry with the credentials of docker. The registry is not asked yet.
func openRepository(reference string) (*remote.Repository, error) {
	repository, err := remote.NewRepository(reference)
	if err != nil {
		return nil, usageError(fmt.Errorf("%q is no name in a registry: %w", reference, err))
	}
	store, err := credentials.NewStore(dockerConfig(), credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	repository.Client = &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	// Nobody on the network is between this machine and itself.
	host, _, err := net.SplitHostPort(repository.Reference.Host())
	if err != nil {
		host = repository.Reference.Host()
	}
	ip := net.ParseIP(host)
	repository.PlainHTTP = host == "localhost" || ip != nil && ip.IsLoopback()
	return repository, nil
}
