// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/engine/fragment"
	"portcullis/internal/bounded"
)

// issuerFlags are what is said of one issuer.
type issuerFlags struct {
	feed, key, root, did string
	subject, may         []string
	minimum              uint64
}

func newFragmentIssuer() *cobra.Command {
	var f issuerFlags
	cmd := &cobra.Command{
		Use:   "issuer --feed NAME (--key F | --root F --subject CN=... | --did DID) --may 'PATH [BOUND=A,B]...'",
		Short: "Name who may update a policy, for genpolicy --issuers",
		Long: `Print a list with one issuer, as policy_data.issuers has it. Join lists with jq -s add for more than one.

--may is a path that fragments may set, with its bounds: containers.NAME.FIELD for a container of the pod, FIELD one of ` + strings.Join(fragment.Fields, ", ") + `;
or containers.NAME for one that the pod does not have. Bounds are registries= (of an image), capabilities= and mounts= (destinations);
one that is not given allows nothing.`,
		Example: `  policyctl fragment issuer --feed shop --key release.pub --may 'containers.web.image registries=registry.example.org/shop' > issuers.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			issuer, err := f.issuer()
			if err != nil {
				return err
			}
			list := []fragment.Issuer{issuer}
			if err := fragment.Check(list); err != nil {
				return usageError(err)
			}
			return writeJSON(cmd.OutOrStdout(), list)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.feed, "feed", "", "`name` of the line of updates, with svns of its own")
	flags.StringVar(&f.key, "key", "", "the issuer's public key, a PEM `file`")
	flags.StringVar(&f.root, "root", "", "the root certificate of the issuer's chain, a PEM `file`")
	flags.StringArrayVar(&f.subject, "subject", nil, "with --root: `NAME=VALUE` that the leaf's subject has, NAME one of CN, O, OU, C, L, ST (repeatable)")
	flags.StringVar(&f.did, "did", "", "root and subject as a `did:x509`")
	flags.Uint64Var(&f.minimum, "minimum-svn", 0, "lowest `number` that is taken, in every boot")
	flags.StringArrayVar(&f.may, "may", nil, "`path` that fragments may set, with its bounds (repeatable)")
	required(cmd, "feed", "may")
	return cmd
}

func (f issuerFlags) issuer() (fragment.Issuer, error) {
	i := fragment.Issuer{Feed: f.feed, MinimumSVN: f.minimum, DID: f.did}
	if f.key != "" {
		der, err := readBlock(f.key, "PUBLIC KEY")
		if err != nil {
			return i, fmt.Errorf("--key: %w", err)
		}
		i.Key = base64.StdEncoding.EncodeToString(der)
	}
	if f.root != "" {
		der, err := readBlock(f.root, "CERTIFICATE")
		if err != nil {
			return i, fmt.Errorf("--root: %w", err)
		}
		sum := sha256.Sum256(der)
		i.Root, i.Subject = "sha256:"+hex.EncodeToString(sum[:]), map[string]string{}
	}
	for _, s := range f.subject {
		name, value, ok := strings.Cut(s, "=")
		if !ok || i.Subject == nil {
			return i, usageError(fmt.Errorf("--subject %.60q: want NAME=VALUE, with --root", s))
		}
		i.Subject[name] = value
	}
	for _, text := range f.may {
		may, err := parseMay(text)
		if err != nil {
			return i, usageError(fmt.Errorf("--may: %w", err))
		}
		i.May = append(i.May, may)
	}
	return i, nil
}

// readBlock reads the first block of a type.
func readBlock(path, kind string) ([]byte, error) {
	text, err := bounded.ReadFile(path, maxEvidence)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return block.Bytes, nil
		}
	}
	return nil, fmt.Errorf("%s holds no %s in PEM", path, kind)
}

// parseMay reads "PATH registries=A,B capabilities=C mounts=D".
func parseMay(text string) (fragment.May, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return fragment.May{}, errors.New("no path")
	}
	m := fragment.May{Path: words[0]}
	for _, word := range words[1:] {
		name, values, _ := strings.Cut(word, "=")
		into, ok := map[string]*[]string{"registries": &m.Registries, "capabilities": &m.Capabilities, "mounts": &m.Mounts}[name]
		if !ok || values == "" {
			return m, fmt.Errorf("%.60q is no bound: want registries=, capabilities= or mounts=", word)
		}
		*into = append(*into, strings.Split(values, ",")...)
	}
	return m, nil
}
