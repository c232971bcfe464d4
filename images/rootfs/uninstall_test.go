// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// builtPolicyctl builds the program once.
var builtPolicyctl = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rootfs-test-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "../../cmd/policyctl").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return filepath.Join(dir, "policyctl"), nil
})

func policyctl(t *testing.T) string {
	t.Helper()
	path, err := builtPolicyctl()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := builtPolicyctl(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// variants are installations that lay down different files.
func variants(t *testing.T) map[string][]string {
	return map[string][]string{
		"usual": nil, "open": {"BINDING=auto"}, "debug": {"AGENT_POLICY_DEBUG=yes"}, "rest": {"REST=127.0.0.1:8181"}, "agent elsewhere": {"KATA_AGENT=/usr/local/bin/kata-agent"},
		"own policy":    {"AGENT_POLICY_FILE=testdata/own.rego", "POLICYCTL=" + policyctl(t)},
		"agent as init": {"AGENT_INIT=yes"}, "agent as init, debug": {"AGENT_INIT=yes", "AGENT_POLICY_DEBUG=yes"},
		"peer pod": {"PEERPOD=extend"}, "peer pod, behind": {"PEERPOD=check", "PEERPOD_GATE=behind"},
	}
}

// images are trees with another PID 1 each, and with links of their own.
var images = map[string]func(dir string) error{
	"plain": func(string) error { return nil },
	"systemd": func(dir string) error {
		if err := os.MkdirAll(filepath.Join(dir, "etc/systemd/system"), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("/dev/null", filepath.Join(dir, "etc/systemd/system/systemd-networkd.service")); err != nil {
			return err
		}
		if err := os.Symlink("/usr/lib/systemd/system/x.service", filepath.Join(dir, "etc/systemd/system/systemd-sysext.service")); err != nil {
			return err
		}
		return os.Symlink("../lib/systemd/systemd", filepath.Join(dir, "usr/sbin/init"))
	},
	"osbuilder's agent as init": func(dir string) error {
		return os.Rename(filepath.Join(dir, "usr/bin/kata-agent"), filepath.Join(dir, "usr/sbin/init"))
	},
}

// TestUninstallLeavesNothing: the tree is as it was, to the byte, whatever was installed.
func TestUninstallLeavesNothing(t *testing.T) {
	for name, variables := range variants(t) {
		for image, make := range images {
			dir := tree(t)
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			if out, err := runInstall(t, dir, nil, variables...); err != nil {
				if image == "plain" || image == "systemd" {
					t.Errorf("%s over %s: %s", name, image, out)
				}
				continue // this PID 1 is not for that
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff == "" {
				t.Errorf("%s over %s: nothing was installed", name, image)
			}
			if out, err := runInstall(t, dir, []string{"uninstall"}); err != nil || out != "" {
				t.Errorf("%s over %s: %v %s", name, image, err, out)
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("%s over %s: %s", name, image, diff)
			}
		}
	}
}

// TestAnInstallOverAnOlderOneLeavesNothingOfIt: each variant over three others gives the tree that it gives by itself.
func TestAnInstallOverAnOlderOneLeavesNothingOfIt(t *testing.T) {
	all := variants(t)
	alone := map[string]map[string]string{}
	for name, variables := range all {
		dir := tree(t)
		if err := install(t, dir, variables...); err != nil {
			t.Fatal(err)
		}
		alone[name] = contents(t, dir)
	}
	names := slices.Sorted(maps.Keys(all))
	for i, second := range names {
		for distance := range 3 {
			first, dir := names[(i+distance+1)%len(names)], tree(t)
			for _, step := range [][]string{all[first], all[second]} {
				if out, err := runInstall(t, dir, nil, step...); err != nil {
					t.Fatalf("%s over %s: %v %s", second, first, err, out)
				}
			}
			if diff := cmp.Diff(alone[second], contents(t, dir)); diff != "" {
				t.Errorf("%s over %s: %s", second, first, diff)
			}
		}
	}
}

// TestAnInstallWithoutAListIsRemovedToo: before the list was kept, what was installed was the same files.
func TestAnInstallWithoutAListIsRemovedToo(t *testing.T) {
	for name, variables := range variants(t) {
		if strings.Contains(name, "init") {
			continue // whose PID 1 only the list knows
		}
		want, dir := tree(t), tree(t)
		for _, d := range []string{dir, want} {
			if err := os.MkdirAll(filepath.Join(d, "etc/systemd/system"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := install(t, dir, variables...); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "usr/share/portcullis/installed")); err != nil {
			t.Fatal(err)
		}
		if err := install(t, dir, "BINDING=required"); err != nil {
			t.Fatal(err)
		}
		if err := install(t, want, "BINDING=required"); err != nil {
			t.Fatal(err)
		}
		got, expected := contents(t, dir), contents(t, want)
		delete(got, "/usr/share/portcullis/installed") // which directories were there is not known
		delete(expected, "/usr/share/portcullis/installed")
		for path := range got {
			if _, ok := expected[path]; !ok && !strings.HasPrefix(got[path], "d") {
				t.Errorf("%s: %s is left", name, path)
			}
		}
	}
}

// TestContradictionsAreRefusedBeforeTheFirstFile also of a tree that has an older installation, which stays.
func TestContradictionsAreRefusedBeforeTheFirstFile(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.rego")
	put(t, bad, "package agent_policy\nx := y\n")
	script := filepath.Join(t.TempDir(), "script.rego")
	put(t, script, "#!/bin/sh\n")
	own, ctl := "AGENT_POLICY_FILE=testdata/own.rego", "POLICYCTL="+policyctl(t)
	tests := []struct {
		name      string
		variables []string
		says      string
	}{
		{"an agent as init in a peer pod", []string{"AGENT_INIT=yes", "PEERPOD=extend"}, "not with AGENT_INIT=yes"},
		{"a REST port without systemd", []string{"AGENT_INIT=yes", "REST=127.0.0.1:8181"}, "not with AGENT_INIT=yes"},
		{"a place beside no forwarder", []string{"PEERPOD_GATE=behind"}, "set PEERPOD too"},
		{"certificates behind the forwarder", []string{"PEERPOD=check", "PEERPOD_GATE=behind", "PEERPOD_TLS=a:b:c"}, "in front of the forwarder"},
		{"certificates without a forwarder", []string{"PEERPOD_TLS=a:b:c"}, "in front of the forwarder"},
		{"certificates without an authority", []string{"PEERPOD=extend", "PEERPOD_TLS=/a:/b"}, "want FILE, or CERTIFICATE:KEY:CLIENT_CA"},
		{"certificates of the machine that builds", []string{"PEERPOD=extend", "PEERPOD_TLS=daemon.json"}, "as absolute paths in the guest"},
		{"an agent of the machine that builds", []string{"KATA_AGENT=bin/kata-agent"}, "want its absolute path in the guest"},
		{"an init that is elsewhere", []string{"AGENT_INIT=yes", "KATA_AGENT=/opt/kata-agent"}, "starts /usr/bin/kata-agent"},
		{"a policy that is not there", []string{"AGENT_POLICY_FILE=none.rego", ctl}, "none.rego is not there"},
		{"a policy that does not compile", []string{"AGENT_POLICY_FILE=" + bad, ctl}, "does not compile"},
		{"a policy that is none", []string{"AGENT_POLICY_FILE=" + script, ctl}, "does not compile"},
		{"a policy that nothing compiles", []string{own}, "POLICYCTL names no program"},
		{"no policyd", []string{"POLICYD=none"}, "POLICYD=none is not there"},
		{"no shim", []string{"AGENT_INIT=yes", "INIT_SHIM=none"}, "INIT_SHIM=none is not there"},
	}
	for _, tt := range tests {
		for _, older := range []bool{false, true} {
			dir := tree(t)
			if older {
				if err := install(t, dir, "AGENT_POLICY_DEBUG=yes"); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, dir)
			out, err := runInstall(t, dir, nil, tt.variables...)
			if err == nil || !strings.Contains(out, tt.says) {
				t.Errorf("%s: %v %s", tt.name, err, out)
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("%s: it left its mark: %s", tt.name, diff)
			}
		}
	}
}

// TestATreeWithoutAnAgentIsWarnedOf but of an overlay, which never has one.
func TestATreeWithoutAnAgentIsWarnedOf(t *testing.T) {
	for name, tt := range map[string]struct {
		variables []string
		warned    bool
	}{
		"usual": {nil, true}, "overlay": {[]string{"OVERLAY=yes"}, false}, "agent elsewhere": {[]string{"KATA_AGENT=/opt/kata-agent"}, true}, "agent as init": {[]string{"AGENT_INIT=yes"}, true},
	} {
		out, err := runInstall(t, t.TempDir(), nil, tt.variables...)
		if warned := strings.Contains(out, "warning: the tree has no "); err != nil || warned != tt.warned {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if out, err := runInstall(t, tree(t), nil); err != nil || strings.Contains(out, "warning") {
		t.Errorf("with an agent: %v %s", err, out)
	}
}
