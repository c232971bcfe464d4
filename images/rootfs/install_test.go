// SPDX-License-Identifier: Apache-2.0

// Package rootfs tests what is laid down in a guest's root filesystem.
package rootfs

import (
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/policydtest"
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
	out, err := runInstall(t, dir, nil, variables...)
	t.Logf("%s", out)
	return err
}

func runInstall(t *testing.T, dir string, args []string, variables ...string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	put(t, filepath.Join(bin, "policyd"), "policyd")
	put(t, filepath.Join(bin, "init"), "init")
	cmd := exec.Command("./install.sh", args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "DESTDIR=" + dir, "POLICYD=" + bin + "/policyd", "INIT_SHIM=" + bin + "/init"}, variables...)
	out, err := cmd.CombinedOutput()
	return string(out), err
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
		config     = "/etc/portcullis/config.toml"
		agent      = "/usr/lib/systemd/system/kata-agent.service.d/10-portcullis.conf"
		unit       = "/usr/lib/systemd/system/policyd.service"
		debug      = "/usr/lib/systemd/system/policyd.service.d/10-debug.conf"
		debugAgent = "/usr/lib/systemd/system/kata-agent.service.d/20-portcullis-debug.conf"
		first      = "/etc/portcullis/default-policy.rego"
		forwarder  = "/usr/lib/systemd/system/agent-protocol-forwarder.service.d/10-portcullis.conf"
		userData   = "/usr/lib/systemd/system/process-user-data.service.d/20-portcullis.conf"
		network    = "/usr/lib/systemd/system/policyd.service.d/20-peerpod.conf"
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
			"/usr/lib/systemd/system/kata-containers.target.wants/policyd.service":       "../policyd.service",
			"/usr/lib/systemd/system/service.d/00-portcullis-credentials.conf":           "\nLoadCredential=\n",
			"/etc/systemd/system-generators/systemd-debug-generator":                     "/dev/null",
			"/etc/systemd/system/systemd-networkd.socket":                                "/dev/null",
			"/etc/systemd/system/systemd-sysext.service":                                 "/dev/null",
			"/usr/lib/modprobe.d/portcullis.conf":                                        "blacklist qemu_fw_cfg",
			"/usr/lib/systemd/system/kata-extension-mount@.service.d/10-portcullis.conf": "ExecStartPre=",
		}, []string{debug, debugAgent, "/usr/libexec/portcullis/init", forwarder, "/usr/sbin/init", "/etc/portcullis/console"}},
		{"binding auto", []string{"BINDING=auto"}, map[string]string{config: `mode = "auto"`, first: "CreateContainerRequest := true"}, nil},
		{"REST", []string{"REST=127.0.0.1:8181"}, map[string]string{config: "rest = \"127.0.0.1:8181\"\n",
			"/usr/lib/systemd/system/policyd-rest.socket":            "\nListenStream=127.0.0.1:8181\nFileDescriptorName=rest\n",
			"/usr/lib/systemd/system/policyd.service.d/10-rest.conf": "\nStartLimitAction=poweroff-force\n"}, nil},
		{"trusted TPM", []string{"TPM_TRUST=svsm"}, map[string]string{config: `trust = "svsm"`}, nil},
		{"debug build", []string{"AGENT_POLICY_DEBUG=yes"}, map[string]string{config: `debug_log = "/tmp/policy.txt"`, debug: "StandardOutput=tty", debugAgent: "StandardOutput=tty",
			"/etc/portcullis/agent.toml": `log_level = "info"`}, nil},
		{"debug build of an agent that is init", []string{"AGENT_POLICY_DEBUG=yes", "AGENT_INIT=yes"}, map[string]string{"/etc/portcullis/console": "DEBUG BUILD"}, nil},
		{"own default policy", []string{"AGENT_POLICY_FILE=testdata/own.rego", "POLICYCTL=" + policyctl(t)}, map[string]string{first: "# Of whoever builds the image."}, nil},
		{"agent as init", []string{"AGENT_INIT=yes"}, map[string]string{
			"/usr/sbin/init": "/usr/libexec/portcullis/init", "/usr/libexec/portcullis/init": "-rwxr-xr-x init", "/usr/bin/kata-agent": "the agent",
		}, []string{unit, agent}},
		{"peer pod that extends", []string{"PEERPOD=extend"}, map[string]string{
			config:    "listen = [\"tls://0.0.0.0:15150\"]\nagent = \"tcp://127.0.0.1:15151\"",
			forwarder: "-listen 127.0.0.1:15151 -disable-tls ", userData: "ExecStartPost=\n", network: "PrivateNetwork=no",
		}, nil},
		{"certificates of the forwarder's", []string{"PEERPOD=extend"}, map[string]string{config: `tls = { forwarder = "/run/peerpod/daemon.json" }`}, nil},
		{"certificates in files", []string{"PEERPOD=check", "PEERPOD_TLS=/a/tls.crt:/a/tls.key:/a/ca.crt"}, map[string]string{
			config: `tls = { certificate = "/a/tls.crt", key = "/a/tls.key", client_ca = "/a/ca.crt" }`}, nil},
		{"peer pod behind the forwarder", []string{"PEERPOD=extend", "PEERPOD_GATE=behind"}, map[string]string{
			config:    "listen = [\"unix:///run/portcullis/gate.sock\"]\nagent = \"unix:///run/portcullis/agent.sock\"",
			forwarder: "-kata-agent-socket /run/portcullis/gate.sock", userData: "ExecStartPost=\n",
		}, []string{network}},
		{"peer pod that checks", []string{"PEERPOD=check"}, map[string]string{config: "expect_preextended = true"},
			[]string{userData, "/etc/systemd/system/systemd-networkd.service"}},
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
			if path := "/etc/portcullis/agent.toml"; !strings.Contains(strings.Join(tt.variables, " "), "DEBUG=yes") && !strings.Contains(got[path], `log_level = "error"`) {
				t.Errorf("%s lets the agent print specifications: %s", path, got[path])
			}
			if left := regexp.MustCompile(`@[A-Z_]+@`).FindString(got[config] + got[agent] + got["/etc/portcullis/agent.toml"]); left != "" {
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

// TestNothingIsPrintedWhereTheHostReads: no unit sends output of agent or daemon to the console or to a journal, from where a word on
// the kernel command line sends it there.
func TestNothingIsPrintedWhereTheHostReads(t *testing.T) {
	for _, variables := range [][]string{nil, {"PEERPOD=extend"}, {"PEERPOD=check", "PEERPOD_GATE=behind"}} {
		dir := tree(t)
		if err := install(t, dir, variables...); err != nil {
			t.Fatal(err)
		}
		got := contents(t, dir)
		units := []string{"policyd.service", "kata-agent.service.d/10-portcullis.conf"}
		if variables != nil {
			units = append(units, "agent-protocol-forwarder.service.d/10-portcullis.conf")
		}
		for _, unit := range units {
			text := got["/usr/lib/systemd/system/"+unit]
			if !strings.Contains(text, "\nStandardOutput=null\n") || !strings.Contains(text, "\nStandardError=null\n") {
				t.Errorf("%s does not keep its output", unit)
			}
		}
		for path, text := range got {
			if regexp.MustCompile(`(?m)^Standard(Output|Error)=(tty|journal|kmsg|inherit|socket)`).MatchString(text) {
				t.Errorf("%s sends output out", path)
			}
		}
	}
}

// TestAnInitThatIsNotSystemdIsRefused: units would be laid down that nothing starts, or an init would be put away that does more than
// start the agent.
func TestAnInitThatIsNotSystemdIsRefused(t *testing.T) {
	file := func(path string) func(string) error {
		return func(dir string) error {
			return os.WriteFile(filepath.Join(dir, path), []byte("an init"), 0o755)
		}
	}
	link := func(target string) func(string) error {
		return func(dir string) error { return os.Symlink(target, filepath.Join(dir, "usr/sbin/init")) }
	}
	tests := []struct {
		name    string
		make    func(dir string) error
		init    string // AGENT_INIT
		refused bool
	}{
		{"systemd", link("../lib/systemd/systemd"), "no", false},
		{"NVIDIA's", link("/bin/NVRC"), "no", true},
		{"NVIDIA's, and the agent as init", link("/bin/NVRC"), "yes", true},
		{"a program", file("usr/sbin/init"), "no", true},
		{"a program beside the agent, and the agent as init", file("usr/sbin/init"), "yes", true},
		{"busybox", link("/bin/busybox"), "no", true},
		{"busybox, and the agent as init", link("/bin/busybox"), "yes", false},
		{"systemd, and the agent as init", link("/lib/systemd/systemd"), "yes", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t)
			if err := tt.make(dir); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			err := install(t, dir, "AGENT_INIT="+tt.init)
			if (err != nil) != tt.refused {
				t.Errorf("install: %v", err)
			}
			if diff := cmp.Diff(before, contents(t, dir)); tt.refused && diff != "" {
				t.Errorf("it left half of itself behind: %s", diff)
			}
		})
	}
}

// TestCheckSaysWhatDidNotArrive: an image of a fixed list of files, which does not know policyd's.
func TestCheckSaysWhatDidNotArrive(t *testing.T) {
	for _, variables := range [][]string{nil, {"AGENT_INIT=yes"}, {"PEERPOD=extend"}, {"AGENT_POLICY_DEBUG=yes"}} {
		dir := tree(t)
		if err := install(t, dir, variables...); err != nil {
			t.Fatal(err)
		}
		installed := contents(t, dir)
		if out, err := runInstall(t, dir, []string{"check"}, variables...); err != nil || !strings.Contains(out, "everything arrived") {
			t.Fatalf("%q: %v %s", variables, err, out)
		}
		if diff := cmp.Diff(installed, contents(t, dir)); diff != "" {
			t.Errorf("check changed the tree: %s", diff)
		}
		fresh, removed := contents(t, tree(t)), []string{}
		for path, text := range installed {
			if _, ok := fresh[path]; ok || strings.HasPrefix(text, "d") || path == "/usr/share/portcullis/installed" {
				continue // the list of what was installed is of no use to a guest
			}
			if err := os.Remove(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			removed = append(removed, strings.TrimPrefix(path, "/usr/sbin")) // /sbin is a link to it
		}
		out, err := runInstall(t, dir, []string{"check"}, variables...)
		if err == nil || len(removed) < 5 {
			t.Errorf("%q: %v without %q", variables, err, removed)
		}
		for _, path := range removed {
			if !strings.Contains(out, path+" did not arrive") {
				t.Errorf("%q without %s: %s", variables, path, out)
			}
		}
	}
}

// TestCheckMissesTheAgentAndTheTree: a gate alone is no guest.
func TestCheckMissesTheAgentAndTheTree(t *testing.T) {
	dir := tree(t)
	if err := install(t, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "usr/bin/kata-agent")); err != nil {
		t.Fatal(err)
	}
	if out, err := runInstall(t, dir, []string{"check"}); err == nil || !strings.Contains(out, "/usr/bin/kata-agent did not arrive") {
		t.Errorf("without the agent: %v %s", err, out)
	}
	for _, what := range []string{"check", "uninstall"} {
		out, err := runInstall(t, filepath.Join(dir, "none"), []string{what})
		if err == nil || !strings.Contains(out, "/none is no directory") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s of a tree that is not there: %v %s", what, err, out)
		}
	}
}

// TestCheckSeesAnotherFile: what lies in a file's place is compared.
func TestCheckSeesAnotherFile(t *testing.T) {
	dir := tree(t)
	if err := install(t, dir); err != nil {
		t.Fatal(err)
	}
	for path, change := range map[string]func(path string) error{
		"/etc/portcullis/config.toml":                func(path string) error { return os.WriteFile(path, []byte("[gate]\n"), 0o644) },
		"/usr/bin/policyd":                           func(path string) error { return os.Truncate(path, 0) },
		"/etc/systemd/system/systemd-sysext.service": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("x", path)) },
	} {
		if err := change(filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
		if out, err := runInstall(t, dir, []string{"check"}); err == nil || !strings.Contains(out, path+" is ") {
			t.Errorf("another %s: %v %s", path, err, out)
		}
	}
}

// TestAnExtensionWithoutItsHashIsNotMounted runs the unit's command as systemd would.
func TestAnExtensionWithoutItsHashIsNotMounted(t *testing.T) {
	unit, err := os.ReadFile("systemd/extension.conf")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`ExecStartPre=/bin/sh -c '(.*)'`).FindSubmatch(unit)
	if command == nil {
		t.Fatal("no command")
	}
	hash := strings.Repeat("0a", 32)
	for _, tt := range []struct {
		name, cmdline string
		mounted       bool
	}{
		{"with its hash", "quiet kata.extension.coco.verity_params=root_hash=" + hash + ",salt=00 x", true},
		{"hash behind other words", "kata.extension.coco.verity_params=salt=00,root_hash=" + hash, true},
		{"beside another one without", "kata.extension.gpu.verity_params= kata.extension.coco.verity_params=root_hash=" + hash, true},
		{"without a hash", "kata.extension.coco.verity_params=", false},
		{"without a value", "kata.extension.coco.verity_params", false},
		{"with an empty hash", "kata.extension.coco.verity_params=root_hash=,salt=00", false},
		{"with a word that only ends so", "kata.extension.coco.verity_params=no_root_hash=" + hash, false},
		{"another's hash", "kata.extension.coco2.verity_params=root_hash=" + hash, false},
		{"twice", "kata.extension.coco.verity_params=root_hash=" + hash + " kata.extension.coco.verity_params=", false},
		{"two hashes", "kata.extension.coco.verity_params=root_hash=" + hash + " kata.extension.coco.verity_params=root_hash=" + hash, false},
		{"not named", "quiet", false},
	} {
		file := filepath.Join(t.TempDir(), "cmdline")
		put(t, file, tt.cmdline+"\n")
		text := strings.NewReplacer("%i", "coco", "$$", "$", "/proc/cmdline", file).Replace(string(command[1]))
		if err := exec.Command("sh", "-c", text).Run(); (err == nil) != tt.mounted {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestWhatInstallDoesNotKnowIsRefused(t *testing.T) {
	for _, variable := range []string{"BINDING=none", "AGENT_POLICY=maybe", "TPM_TRUST=mine", "PEERPOD=yes", "PEERPOD_GATE=beside", "AGENT_INIT=1", "AGENT_POLICY_DEBUG=on", "REST=10.0.0.1:8181"} {
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
	if err := policydtest.Build(policyd); err != nil {
		t.Fatal(err)
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
