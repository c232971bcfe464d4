// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// built are the programs of one architecture, and what was made with them.
type built struct {
	arch string
	dir  string // programs by name, and NAME.cdx.json
	docs string // manual pages and completions, the same for all architectures
}

// programs by name: package, and the file that has flags of its own.
var programs = []struct{ name, path, flags string }{
	{"policyd", "./cmd/policyd", guestFlags},
	{"portcullis-init", "./images/rootfs/cmd/init", guestFlags},
	{"genpolicy", "./cmd/genpolicy", ""},
	{"policyctl", "./cmd/policyctl", ""},
}

const guestFlags = "cmd/policyd/build.flags"

// build builds all programs for an architecture.
func (r *release) build(arch string) (*built, error) {
	b := &built{arch: arch, dir: filepath.Join(r.work, arch), docs: filepath.Join(r.work, "docs")}
	module, err := r.output("go", "list", "-m")
	if err != nil {
		return nil, err
	}
	flags := fmt.Sprintf("-s -w -funcalign=16 -buildid= -X %s/internal/version.described=%s", strings.TrimSpace(module), r.described)
	for _, p := range programs {
		if err := r.goBuild(arch, filepath.Join(b.dir, p.name), p.path, p.flags, flags); err != nil {
			return nil, err
		}
	}
	sbom := filepath.Join(r.work, "sbom")
	if _, err := os.Stat(sbom); err != nil {
		if err := r.goBuild(runtime.GOARCH, sbom, "./images/rootfs/cmd/sbom", "", "-s -w"); err != nil {
			return nil, err
		}
	}
	for _, p := range programs {
		list, err := r.output(sbom, filepath.Join(b.dir, p.name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(b.dir, p.name+".cdx.json"), []byte(list), 0o644); err != nil {
			return nil, err
		}
	}
	return b, r.document(b)
}

func (r *release) goBuild(arch, out, path, flags, ldflags string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", out}
	if flags != "" {
		own, err := os.ReadFile(filepath.Join(r.source, flags))
		if err != nil {
			return err
		}
		args = append(args, strings.Fields(string(own))...)
	}
	cmd := exec.Command("go", append(args, path)...)
	cmd.Dir, cmd.Stderr = r.source, os.Stderr
	// What a builder's surroundings would change is set.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s for %s: %w", path, arch, err)
	}
	return nil
}

// output runs a program in the source and gives what it prints.
func (r *release) output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stderr = r.source, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}

// document has the tools write their manual pages and completions, once, on the architecture that runs here.
func (r *release) document(b *built) error {
	if b.arch != runtime.GOARCH {
		return nil
	}
	for _, name := range []string{"genpolicy", "policyctl"} {
		program := filepath.Join(b.dir, name)
		if _, err := r.output(program, "man", filepath.Join(b.docs, "man/man1")); err != nil {
			return err
		}
		for shell, path := range map[string]string{
			"bash": "bash-completion/completions/" + name, "zsh": "zsh/site-functions/_" + name, "fish": "fish/vendor_completions.d/" + name + ".fish",
		} {
			text, err := r.output(program, "completion", shell)
			if err != nil {
				return err
			}
			file := filepath.Join(b.docs, path)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
