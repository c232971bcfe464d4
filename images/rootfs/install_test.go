// Package rootfs tests what is laid down in a guest's root filesystem.
package rootfs

import (
	"compress/gzip"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is a small root filesystem as osbuilder leaves it, with stand-ins for programs.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "usr/bin/kata-agent"), "the agent")
	put(t, filepath.Join(dir, "etc/hostname"), "guest")
	if err := os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/sbin", filepath.Join(dir, "sbin")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// install runs install.sh on a tree.
func install(t *testing.T, dir string, variables ...string) error {
	t.Helper()
	bin := t.TempDir()
	put(t, filepath.Join(bin, "policyd"), "policyd")
	put(t, filepath.Join(bin, "init"), "init")
	cmd := exec.Command("./install.sh")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "DESTDIR=" + dir, "POLICYD=" + bin + "/policyd", "INIT_SHIM=" + bin + "/init"}, variables...)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	return err
}

// contents maps each path of a tree to its mode and content.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		all[strings.TrimPrefix(path, dir)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWithoutPolicyTheTreeStaysAsItIs(t *testing.T) {
	dir := tree(t)
	before := contents(t, dir)
	if err := install(t, dir, "AGENT_POLICY=no", "AGENT_INIT=yes"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestInstall(t *testing.T) {
	const (
		config    = "/etc/portcullis/config.toml"
		agent     = "/usr/lib/systemd/system/kata-agent.service.d/10-portcullis.conf"
		unit      = "/usr/lib/systemd/system/policyd.service"
		debug     = "/usr/lib/systemd/system/policyd.service.d/10-debug.conf"
		first     = "/etc/portcullis/default-policy.rego"
		forwarder = "/usr/lib/systemd/system/agent-protocol-forwarder.service.d/10-portcullis.conf"
		userData  = "/usr/lib/systemd/system/process-user-data.service.d/20-portcullis.conf"
	)
	tests := []struct {
		name      string
		variables []string
		has       map[string]string // path: a part of its mode and content
		lacks     []string
	}{
		{"as it is", nil, map[string]string{
			config: `mode = "required"`, first: "SetPolicyRequest := true", unit: "Type=notify", agent: "--config /etc/portcullis/agent.toml",
			"/usr/bin/policyd":           "-rwxr-xr-x policyd",
			"/etc/portcullis/agent.toml": `server_addr = "unix:///run/portcullis/agent.sock"`,
			"/usr/lib/systemd/system/kata-containers.target.wants/policyd.service": "../policyd.service",
		}, []string{debug, "/usr/libexec/portcullis/init", forwarder, "/usr/sbin/init"}},
		{"binding auto", []string{"BINDING=auto"}, map[string]string{config: `mode = "auto"`, first: "CreateContainerRequest := true"}, nil},
		{"trusted TPM", []string{"TPM_TRUST=svsm"}, map[string]string{config: `trust = "svsm"`}, nil},
		{"debug build", []string{"AGENT_POLICY_DEBUG=yes"}, map[string]string{config: `debug_log = "/tmp/policy.txt"`, debug: "DEBUG BUILD"}, nil},
		{"own default policy", []string{"AGENT_POLICY_FILE=install.sh"}, map[string]string{first: "#!/bin/sh"}, nil},
		{"agent as init", []string{"AGENT_INIT=yes"}, map[string]string{
			"/usr/sbin/init": "/usr/libexec/portcullis/init", "/usr/libexec/portcullis/init": "-rwxr-xr-x init", "/usr/bin/kata-agent": "the agent",
		}, []string{unit, agent}},
		{"peer pod that extends", []string{"PEERPOD=extend"}, map[string]string{
			config:    "listen = [\"unix:///run/portcullis/gate.sock\"]",
			forwarder: "-kata-agent-socket /run/portcullis/gate.sock", userData: "ExecStartPost=\n",
		}, nil},
		{"peer pod that checks", []string{"PEERPOD=check"}, map[string]string{config: "expect_preextended = true"}, []string{userData}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t)
			if err := install(t, dir, tt.variables...); err != nil {
				t.Fatal(err)
			}
			got := contents(t, dir)
			for path, part := range tt.has {
				if !strings.Contains(got[path], part) {
					t.Errorf("%s is %.300q, want %q in it", path, got[path], part)
				}
			}
			for _, path := range tt.lacks {
				if _, ok := got[path]; ok {
					t.Errorf("%s is there", path)
				}
			}
			if left := regexp.MustCompile(`@[A-Z_]+@`).FindString(got[config] + got[agent]); left != "" {
				t.Errorf("%s was not filled in", left)
			}
		})
	}
}

func TestAnAgentThatIsInitGoesBackToItsPlace(t *testing.T) {
	dir := tree(t)
	if err := os.Rename(filepath.Join(dir, "usr/bin/kata-agent"), filepath.Join(dir, "usr/sbin/init")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second installation changes nothing
		if err := install(t, dir, "AGENT_INIT=yes"); err != nil {
			t.Fatal(err)
		}
		got := contents(t, dir)
		if !strings.HasSuffix(got["/usr/bin/kata-agent"], "the agent") || !strings.HasSuffix(got["/usr/sbin/init"], " /usr/libexec/portcullis/init") {
			t.Errorf("agent %q, init %q", got["/usr/bin/kata-agent"], got["/usr/sbin/init"])
		}
	}
}

func TestWhatInstallDoesNotKnowIsRefused(t *testing.T) {
	for _, variable := range []string{"BINDING=none", "AGENT_POLICY=maybe", "TPM_TRUST=mine", "PEERPOD=yes", "AGENT_INIT=1", "AGENT_POLICY_DEBUG=on"} {
		dir := tree(t)
		before := contents(t, dir)
		if install(t, dir, variable) == nil {
			t.Errorf("%s was taken", variable)
		}
		if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
			t.Errorf("%s left something behind: %s", variable, diff)
		}
	}
}

// maxExposure is what "systemd-analyze security" may find, from 0 to 10.
const maxExposure = 2.0

func TestTheUnitIsConfined(t *testing.T) {
	need(t, "systemd-analyze")
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "systemd/policyd.service").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for policyd.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no exposure in\n%s", out)
	}
	exposure, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil || exposure > maxExposure {
		t.Errorf("exposure %s, want at most %v", found[1], maxExposure)
	}
	t.Logf("exposure %s", found[1])
}

// Bounds of what an image grows by, in bytes.
const (
	maxAdded      = 30 << 20
	maxCompressed = 12 << 20
)

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func TestAnImageGrowsLittle(t *testing.T) {
	policyd := filepath.Join(t.TempDir(), "policyd")
	build := exec.Command("go", "build", "-tags=nethttpomithttp2", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", policyd, "../../cmd/policyd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	if err := install(t, dir, "POLICYD="+policyd); err != nil {
		t.Fatal(err)
	}
	var compressed counter
	z := gzip.NewWriter(&compressed)
	added := 0
	for path, text := range contents(t, dir) {
		added += len(text)
		if _, err := z.Write([]byte(path + text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MiB, %.1f MiB with gzip", float64(added)/(1<<20), float64(compressed)/(1<<20))
	if added > maxAdded || compressed > maxCompressed {
		t.Errorf("%d bytes, %d with gzip: want at most %d and %d", added, compressed, maxAdded, maxCompressed)
	}
}

// need skips a test for want of a tool; where CI is set that is a failure.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(tool + " is not installed")
	}
	t.Skip("SKIPPED: " + tool + " is not installed")
}
