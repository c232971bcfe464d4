// SPDX-License-Identifier: Apache-2.0

// Dist makes what a release consists of: archives, packages and images of policyd and of the tools for each architecture, lists of
// what is in them, checksums, and a signature.
//
//	dist --source DIR --version V --epoch SECONDS --out DIR [--key FILE [--password-file FILE]]
//
// The same source, version, epoch and Go give the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// release is one call.
type release struct {
	source, out, work string
	described         string // as the programs print it
	version           string // as packages want it: 1.2.3, or 1.2.3+4.gabcdef
	time              time.Time
	key, password     string // files
}

var architectures = []string{"amd64", "arm64"}

func main() {
	var r release
	var epoch int64
	flag.StringVar(&r.source, "source", ".", "the project's `folder`")
	flag.StringVar(&r.described, "version", "", "what git describe says")
	flag.Int64Var(&epoch, "epoch", 0, "the commit's time, `seconds`")
	flag.StringVar(&r.out, "out", "", "`folder` for the files; it must not be there")
	flag.StringVar(&r.key, "key", "", "minisign secret key `file`; nothing is signed without")
	flag.StringVar(&r.password, "password-file", "", "`file` with the key's password")
	flag.Parse()
	if r.described == "" || r.out == "" || epoch == 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	r.time = time.Unix(epoch, 0).UTC()
	if err := r.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func (r *release) run() (err error) {
	if r.version, err = packageVersion(r.described); err != nil {
		return err
	}
	if err := os.Mkdir(r.out, 0o755); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "portcullis-dist-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.work)) }()
	var toolLayers, guestLayers []platformLayer
	for _, arch := range architectures {
		b, err := r.build(arch)
		if err != nil {
			return err
		}
		for _, p := range []product{r.tools(b), r.guest(b)} {
			if err := r.archive(p, arch); err != nil {
				return err
			}
			if err := r.packages(p, arch); err != nil {
				return err
			}
		}
		if err := r.lists(b); err != nil {
			return err
		}
		overlay, err := r.overlay(b)
		if err != nil {
			return err
		}
		toolLayers = append(toolLayers, platformLayer{arch, r.toolsRoot(b)})
		guestLayers = append(guestLayers, platformLayer{arch, overlay})
	}
	if err := r.image("portcullis-tools", toolLayers, toolsConfig); err != nil {
		return err
	}
	if err := r.image("portcullis-guest", guestLayers, guestConfig); err != nil {
		return err
	}
	return r.sums()
}

var described = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+?)?)(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)

// packageVersion makes of what git describes a version that sorts among others: between tags it is the last one's and what came
// since. Without any tag it is 0.0.0.
func packageVersion(text string) (string, error) {
	if m := described.FindStringSubmatch(text); m != nil {
		var since []string
		if m[2] != "" {
			since = append(since, m[2], "g"+m[3])
		}
		if m[4] != "" {
			since = append(since, "dirty")
		}
		if len(since) == 0 {
			return m[1], nil
		}
		return m[1] + "+" + strings.Join(since, "."), nil
	}
	commit, dirty := strings.CutSuffix(text, "-dirty")
	if !regexp.MustCompile(`^[0-9a-f]{4,40}$`).MatchString(commit) {
		return "", fmt.Errorf("version %q is neither a tag nor a commit, as git describe --tags --always prints them", text)
	}
	if dirty {
		commit += ".dirty"
	}
	return "0.0.0+g" + commit, nil
}
