// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A first try on a laptop, as docs/byhand.md has it: no guest, no root, no configuration file; a policy set, a request denied, the
// status, and what the program says of itself.
func TestPolicydByHand(t *testing.T) {
	tool, err := policyctl()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "try")
	cmd := exec.Command(buildPolicyd(t), "--try", dir)
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	socket := filepath.Join(dir, "gate.sock")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ask := func(args ...string) string {
		t.Helper()
		out, _ := exec.Command(tool, args...).CombinedOutput()
		return string(out)
	}
	policy := write("p.rego", "package agent_policy\n\ndefault CreateSandboxRequest := true\n")
	if got := ask("set-policy", "unix://"+socket, policy); !strings.Contains(got, "is active") {
		t.Errorf("set-policy says %s", got)
	}
	requests := write("r.jsonl", `{"kind":"GetMetricsRequest","request":{}}`+"\n")
	if got := ask("send", "--address", "unix://"+socket, requests); !strings.Contains(got, "DENY GetMetricsRequest") {
		t.Errorf("send says %s", got)
	}
	if got := ask("status", "--socket", filepath.Join(dir, "status.sock")); !strings.Contains(got, "GetMetricsRequest: 1 denied") {
		t.Errorf("status says %s", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"bound=none", "level=DEBUG msg=decided request=GetMetricsRequest allowed=false", `msg="policyd ends" allowed=0 denied=1`} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("nothing says %s in\n%s", want, stderr.String())
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "decisions.jsonl"))
	if err != nil || !strings.Contains(string(log), `"kind":"GetMetricsRequest"`) {
		t.Errorf("the decision log holds %s (%v)", log, err)
	}
}

func TestCheckConfig(t *testing.T) {
	binary := buildPolicyd(t)
	for _, test := range []struct {
		name, config string
		want         int
		says         string
	}{
		{"good", "policy.default = ''\n", 0, "good\nlisten          vsock://-1:1024\n"},
		{"an unknown key", "policy.defualt = ''\n", 2, `unknown key "policy.defualt"`},
		{"a default policy that is not there", "policy.default = '/nonexistent'\n", 2, "/nonexistent"},
		{"an address that is none", "policy.default = ''\ngate.agent = 'agent.sock'\n", 2, "agent.sock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "--config", path, "--check-config")
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != test.want || !strings.Contains(string(out), test.says) {
				t.Errorf("exit code %d, want %d, %s", got, test.want, out)
			}
		})
	}
}

// TestCheckConfigTakesNoCertificatesThatAStartRefuses: it makes of them what a start would.
func TestCheckConfigTakesNoCertificatesThatAStartRefuses(t *testing.T) {
	binary, dir := buildPolicyd(t), t.TempDir()
	cert, key := selfSigned(t)
	_, other := selfSigned(t)
	for name, text := range map[string][]byte{"cert": cert, "key": key, "other": other, "empty.json": []byte("{}")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tls, says := range map[string]string{
		"certificate = 'DIR/cert'\nkey = 'DIR/key'\nclient_ca = 'DIR/cert'\n":   "record          of the pod's life, where there is a TPM in PCR 14\n",
		"certificate = 'DIR/cert'\nkey = 'DIR/other'\nclient_ca = 'DIR/cert'\n": "private key does not match public key",
		"certificate = 'DIR/cert'\nkey = 'DIR/key'\nclient_ca = 'DIR/key'\n":    "TLS cannot be set up",
		"forwarder = 'DIR/empty.json'\n":                                        "empty.json: it has no tls-server-cert\n",
	} {
		path := filepath.Join(dir, "config.toml")
		config := "policy.default = ''\nmeasure.pod = 'pcr'\ngate.listen = ['tls://127.0.0.1:15150']\n[gate.tls]\n" + strings.ReplaceAll(tls, "DIR", dir)
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "--config", path, "--check-config")
		out, err := cmd.CombinedOutput()
		if good := strings.HasPrefix(says, "record"); (err == nil) != good || !strings.Contains(string(out), says) {
			t.Errorf("%s%v %s", tls, err, out)
		}
	}
}
