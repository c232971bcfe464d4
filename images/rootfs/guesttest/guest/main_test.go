// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"golang.org/x/sys/unix"
)

const (
	resultPort = "/dev/ttyS1"
	configPath = "/etc/portcullis/config.toml"
	policyPath = "/guesttest/pod.rego"
	casesPath  = "/guesttest/pod.jsonl"
)

// cmdline are the words of the kernel command line; a word without = has the value "".
var cmdline = readCmdline()

func readCmdline() map[string]string {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	words := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		key, value, _ := strings.Cut(word, "=")
		words[key] = value
	}
	return words
}

func inGuest() bool { return os.Getpid() != 1 && cmdline["guesttest.run"] != "" }

// skipOutside ends a test that is not in the guest.
func skipOutside(t *testing.T) {
	t.Helper()
	if !inGuest() {
		t.Skip("SKIPPED: not in the test guest; run make guest-test")
	}
}

func TestMain(m *testing.M) {
	if !inGuest() {
		os.Exit(m.Run())
	}
	if len(os.Args) == 2 && os.Args[1] == "setup" {
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, "guesttest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	port, err := os.OpenFile(resultPort, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err == nil {
		os.Stdout, os.Stderr = port, port
	}
	flag.Parse()
	for name, value := range map[string]string{"test.run": cmdline["guesttest.run"], "test.v": "true", "test.timeout": (3 * wait).String()} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	fmt.Printf("GUEST EXIT %d\n", m.Run())
	time.Sleep(200 * time.Millisecond) // the ports drain
	// QEMU is set to end when the guest reboots.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		panic(err)
	}
}

// setUp changes the guest before policyd starts.
func setUp() error {
	if peers := cmdline["guesttest.peers"]; peers != "" {
		if err := setPeers(peers); err != nil {
			return err
		}
	}
	if digest := cmdline["guesttest.measured"]; digest != "" {
		return extendPCR8(digest)
	}
	return nil
}

// setPeers lays a copy of the configuration with other vsock_peers over the installed one.
func setPeers(peers string) error {
	text, err := os.ReadFile(configPath)
	if err != nil {
		return err
	}
	installed := "vsock_peers = [2]"
	if !strings.Contains(string(text), installed) {
		return fmt.Errorf("%s does not say %s", configPath, installed)
	}
	changed := strings.Replace(string(text), installed, "vsock_peers = ["+peers+"]", 1)
	fmt.Fprintf(os.Stderr, "guesttest: vsock_peers = [%s], for the loopback; the image has [2]\n", peers)
	if err := os.WriteFile(configPath, []byte(changed), 0o644); err == nil {
		return nil // a RAM disk
	}
	if err := os.MkdirAll("/run/guesttest", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/run/guesttest/config.toml", []byte(changed), 0o644); err != nil {
		return err
	}
	return unix.Mount("/run/guesttest/config.toml", configPath, "", unix.MS_BIND, "")
}

func extendPCR8(digest string) error {
	raw, err := hex.DecodeString(digest)
	if err != nil {
		return err
	}
	t, err := linuxtpm.Open("/dev/tpmrm0")
	if err != nil {
		return err
	}
	defer t.Close()
	_, err = tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 8, Auth: tpm2.PasswordAuth(nil)}, Digests: tpm2.TPMLDigestValues{
		Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: raw}}}}.Execute(t)
	return err
}
