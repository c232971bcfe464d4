// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const hook = "osbuilder/portcullis.sh"

// built is a directory as PORTCULLIS_BUILD names it, with stand-ins for programs.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"policyd", "portcullis-init", "policyd.cdx.json"} {
		put(t, filepath.Join(dir, name), name)
	}
	return dir
}

func bash(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("bash", args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// debian unpacks the Debian tree that "make guest-test" has made with mmdebstrap.
func debian(t *testing.T) string {
	t.Helper()
	tar := filepath.Join(os.Getenv("PORTCULLIS_GUEST"), "base.tar")
	if _, err := os.Stat(tar); err != nil {
		t.Skip("SKIPPED: no Debian tree; make guest-test makes one and sets PORTCULLIS_GUEST")
	}
	dir := t.TempDir()
	if out, err := bash(t, nil, "-c", `tar -C "$0" -xf "$1"`, dir, tar); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func has(t *testing.T, dir, path string, want bool) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(dir, path)); (err == nil) != want {
		t.Errorf("%s: there %t, want %t", path, err == nil, want)
	}
}

func TestTheHookInstallsIntoADebianTree(t *testing.T) {
	for _, policy := range []string{"", "no", "yes"} {
		t.Run("AGENT_POLICY="+policy, func(t *testing.T) {
			dir := debian(t)
			if out, err := bash(t, []string{"ROOTFS_DIR=" + dir, "AGENT_POLICY=" + policy, "PORTCULLIS_BUILD=" + built(t)}, hook); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			has(t, dir, "usr/bin/policyd", policy == "yes")
			has(t, dir, "etc/portcullis", policy == "yes")
			has(t, dir, "usr/lib/systemd/system/policyd.service", policy == "yes")
		})
	}
}

func TestTheHookTellsWhatIsWrong(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"no tree", `ROOTFS_DIR=/does/not/exist ` + hook, "ROOTFS_DIR does not name a tree"},
		{"sourced by something else", "source " + hook, "not by rootfs.sh"},
	}
	for _, tt := range tests {
		out, err := bash(t, nil, "-c", tt.script)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, %q", tt.name, err, out)
		}
	}
}

// osbuilder copies Kata's osbuilder with a distribution of ours, whose tree is mmdebstrap's.
func osbuilder(t *testing.T) (rootfsScript string) {
	t.Helper()
	kata := os.Getenv("KATA_SRC")
	if kata == "" {
		t.Skip("SKIPPED: KATA_SRC does not name Kata's source tree; its rootfs.sh was not run")
	}
	tar := filepath.Join(os.Getenv("PORTCULLIS_GUEST"), "base.tar")
	if _, err := os.Stat(tar); err != nil {
		t.Skip("SKIPPED: no Debian tree; make guest-test makes one and sets PORTCULLIS_GUEST")
	}
	dir := t.TempDir()
	if out, err := bash(t, nil, "-c", `cd "$0" && cp -a --parents tools/osbuilder versions.yaml VERSION src/kata-opa ci "$1"`, kata, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path, err := filepath.Abs(hook)
	if err != nil {
		t.Fatal(err)
	}
	builder := filepath.Join(dir, "tools/osbuilder/rootfs-builder")
	put(t, filepath.Join(builder, "sealed/config.sh"), "OS_NAME=sealed\nOS_VERSION=1\nPACKAGES=\nINIT_PROCESS=systemd\nsource "+path+"\n")
	put(t, filepath.Join(builder, "sealed/rootfs_lib.sh"), "build_rootfs() { tar -C \"$1\" -xf "+tar+"; }\n")
	return filepath.Join(builder, "rootfs.sh")
}

// TestKatasRootfsScript runs Kata's own script with an agent that is already built.
func TestKatasRootfsScript(t *testing.T) {
	script := osbuilder(t)
	agent := filepath.Join(os.Getenv("PORTCULLIS_GUEST"), "kata-agent")
	for _, init := range []string{"no", "yes"} {
		t.Run("distribution, AGENT_INIT="+init, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "rootfs")
			out, err := bash(t, []string{"ROOTFS_DIR=" + dir, "AGENT_SOURCE_BIN=" + agent, "AGENT_POLICY=yes", "AGENT_INIT=" + init,
				"PORTCULLIS_BUILD=" + built(t)}, script, "sealed")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			has(t, dir, "usr/bin/policyd", true)
			has(t, dir, "usr/bin/kata-agent", true)
			has(t, dir, "usr/libexec/portcullis/init", init == "yes")
			has(t, dir, "usr/lib/systemd/system/kata-agent.service.d/10-portcullis.conf", init == "no")
			target, err := os.Readlink(filepath.Join(dir, "usr/sbin/init"))
			if shim := target == "/usr/libexec/portcullis/init"; err != nil || shim != (init == "yes") {
				t.Errorf("/sbin/init is %q, %v", target, err)
			}
		})
	}
	t.Run("overlay", func(t *testing.T) {
		dir := debian(t)
		// What rootfs.sh edits in a tree of this machine's own distribution.
		put(t, filepath.Join(dir, "etc/chrony/chrony.conf"), "")
		put(t, filepath.Join(dir, "usr/lib/systemd/system/chrony.service"), "")
		put(t, filepath.Join(dir, "etc/chrony.conf"), "")
		put(t, filepath.Join(dir, "usr/lib/systemd/system/chronyd.service"), "")
		env := []string{"ROOTFS_DIR=" + dir, "AGENT_SOURCE_BIN=" + agent, "AGENT_POLICY=yes", "PORTCULLIS_BUILD=" + built(t)}
		if out, err := bash(t, env, script, "-r", dir); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, dir, "usr/bin/policyd", false) // rootfs.sh sources no distribution's files for -r
		if out, err := bash(t, env, hook); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, dir, "usr/bin/policyd", true)
		has(t, dir, "usr/bin/kata-agent", true)
	})
}
