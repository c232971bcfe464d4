// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // the formats register themselves
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packages writes the .deb and the .rpm of a product.
func (r *release) packages(p product, arch string) error {
	for _, format := range []string{"deb", "rpm"} {
		info, err := r.describe(p, arch)
		if err != nil {
			return err
		}
		packager, err := nfpm.Get(format)
		if err != nil {
			return err
		}
		if err := nfpm.PrepareForPackager(info, format); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		var text bytes.Buffer
		if err := packager.Package(info, &text); err != nil {
			return fmt.Errorf("%s as %s: %w", p.name, format, err)
		}
		if err := os.WriteFile(filepath.Join(r.out, packager.ConventionalFileName(info)), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) describe(p product, arch string) (*nfpm.Info, error) {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: p.name, Arch: arch, Platform: "linux", Version: r.version, VersionSchema: "semver", Release: "1", Section: "admin", Priority: "optional",
		Maintainer: "Portcullis <portcullis@example.org>", Description: p.summary, License: "Apache-2.0", MTime: r.time, DisableGlobbing: true,
	})
	info.RPM.BuildHost, info.RPM.Summary = "localhost", p.summary
	for i, e := range p.tree {
		c := &files.Content{Destination: "/usr/" + e.path, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: e.mode, MTime: r.time}}
		switch {
		case e.link != "":
			c.Type, c.Source = files.TypeSymlink, e.link
		default:
			text, err := e.content()
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(e.path, "share/man/") { // as distributions have them
				if text, err = compressed(text); err != nil {
					return nil, err
				}
				c.Destination += ".gz"
			}
			c.Source = filepath.Join(r.work, fmt.Sprintf("content-%s-%s-%d", p.name, arch, i))
			if err := os.WriteFile(c.Source, text, e.mode.Perm()); err != nil {
				return nil, err
			}
		}
		info.Contents = append(info.Contents, c)
	}
	return info, nil
}

func compressed(text []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
