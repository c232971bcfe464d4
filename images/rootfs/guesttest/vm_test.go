// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// machine is a guest to boot.
type machine struct {
	initrd  string
	cmdline []string
	disks   []string // raw images, in order; the first is vda
	devices []string // more arguments of QEMU
	test    string   // name of the test to run in the guest
	fails   bool     // the guest must not get as far as a report
}

// report is what a guest left behind.
type report struct {
	console string // everything that left by the serial console and the virtio console
	results string // of the tests in the guest, empty when they did not get to run
}

// bootLimit bounds one guest. Without KVM, on a machine that does other things too, a minute is normal.
func bootLimit() time.Duration {
	if accelerator() == "kvm" {
		return time.Minute
	}
	return 7 * time.Minute
}

// accelerator is "kvm" where that boots the kernel, else "tcg", which is said. To have /dev/kvm is not enough: inside some VMs
// only a kernel made for it runs at speed, and any other is interpreted, hundreds of times slower.
var accelerator = sync.OnceValue(func() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Without a root the kernel panics, which ends QEMU.
	args := append(common("kvm"), "-kernel", filepath.Join(os.Getenv("PORTCULLIS_GUEST"), "vmlinuz"), "-append", "console=ttyS0 panic=-1", "-serial", "stdio")
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
	if err == nil && strings.Contains(string(out), "Kernel panic") {
		return "kvm"
	}
	fmt.Printf("KVM DOES NOT BOOT THIS KERNEL IN 10 S (%v): guests are emulated by TCG, many times slower, and bounds on time are not checked\n", err)
	return "tcg"
})

// common are QEMU's arguments for every guest.
func common(accelerator string) []string {
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-m", "512"}
	if accelerator == "kvm" {
		return append(args, "-accel", "kvm", "-smp", "2", "-cpu", "host,-arch-capabilities") // an MSR that a KVM inside a VM may not set
	}
	return append(args, "-accel", "tcg,thread=multi", "-cpu", "max")
}

// boot runs m until it ends and checks what its tests say.
func boot(t *testing.T, m machine) report {
	t.Helper()
	dir := t.TempDir()
	began := time.Now()
	r := m.run(t, dir)
	t.Logf("guest ran for %v", time.Since(began).Round(100*time.Millisecond))
	if path := os.Getenv("PORTCULLIS_GUEST_LOGS"); path != "" {
		keep(t, path, r)
	}
	if !m.fails {
		m.check(t, r)
	}
	return r
}

func keep(t *testing.T, dir string, r report) {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "_")
	for suffix, text := range map[string]string{".console": r.console, ".results": r.results} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (m machine) run(t *testing.T, dir string) report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit())
	defer cancel()
	stop := startTPM(t, dir)
	defer stop()
	console, results, virtio := filepath.Join(dir, "console"), filepath.Join(dir, "results"), filepath.Join(dir, "virtio")
	args := append(common(accelerator()),
		"-kernel", artifact(t, "vmlinuz"), "-initrd", m.initrd, "-append", strings.Join(m.words(), " "),
		"-serial", "file:"+console, "-serial", "file:"+results,
		"-device", "virtio-serial-pci", "-chardev", "file,id=hvc,path="+virtio, "-device", "virtconsole,chardev=hvc",
		"-chardev", "socket,id=tpm,path="+filepath.Join(dir, "tpm.sock"), "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm",
	)
	args = append(args, m.devices...)
	for i, disk := range m.disks {
		args = append(args, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=d%d", disk, i), "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d", i))
	}
	if out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput(); err != nil {
		t.Fatalf("QEMU: %v %v\n%s\n--- results ---\n%s\n--- end of console ---\n%s", err, ctx.Err(), out, readFile(t, results), tail(readFile(t, console)))
	}
	return report{console: readFile(t, console) + readFile(t, virtio), results: strings.ReplaceAll(readFile(t, results), "\r", "")}
}

func (m machine) words() []string {
	// no_timer_check: an emulated CPU that waits for a busy host looks to the kernel like a timer that does not work.
	return append([]string{"console=ttyS0", "panic=-1", "quiet", "no_timer_check", "systemd.unit=kata-containers.target", "systemd.show_status=no",
		"guesttest.run=^" + m.test + "$", "guesttest.accel=" + accelerator()}, m.cmdline...)
}

// startTPM starts a fresh TPM 2.0 with all PCRs at zero.
func startTPM(t *testing.T, dir string) (stop func()) {
	t.Helper()
	socket := filepath.Join(dir, "tpm.sock")
	state := filepath.Join(dir, "tpm")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return func() {
		_ = cmd.Process.Kill() // it has mostly ended with QEMU
		_ = cmd.Wait()
	}
}

var (
	exitLine   = regexp.MustCompile(`(?m)^GUEST EXIT (\d+)$`)
	passLine   = regexp.MustCompile(`(?m)^\s*--- PASS: (\S+)`)
	figureLine = regexp.MustCompile(`FIGURE (.*)`)
)

// check fails t unless the guest's tests ran and passed.
func (m machine) check(t *testing.T, r report) {
	t.Helper()
	exit := exitLine.FindStringSubmatch(r.results)
	passed := passLine.FindAllStringSubmatch(r.results, -1)
	for _, figure := range figureLine.FindAllStringSubmatch(r.results, -1) {
		t.Log(figure[1])
	}
	if len(exit) == 0 || exit[1] != "0" || len(passed) == 0 {
		t.Fatalf("tests in the guest did not pass\n--- results ---\n%s\n--- end of console ---\n%s", r.results, tail(r.console))
	}
	for _, name := range passed {
		t.Log("in the guest: ", name[1])
	}
}

func tail(s string) string { return s[max(0, len(s)-6000):] }

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// artifact returns the path of something that run.sh made, and ends the test where it was not run.
func artifact(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("PORTCULLIS_GUEST")
	if dir == "" {
		t.Skip("SKIPPED: no guest to boot; run make guest-test")
	}
	if os.Getuid() != 0 {
		t.Fatal("booting guests needs root, for the owners of their files: uid " + strconv.Itoa(os.Getuid()))
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}
