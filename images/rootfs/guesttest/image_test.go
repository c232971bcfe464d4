// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/images/verity"
)

// kernelModules are what the guests need beyond the kernel; those they depend on come by themselves.
var kernelModules = []string{"virtio_pci", "virtio_blk", "dm-verity", "vsock_loopback", "vmw_vsock_virtio_transport", "vsock_diag",
	"virtio_console", "qemu_fw_cfg"}

var (
	dependsLine = regexp.MustCompile(`\x00depends=([^\x00]*)\x00`)
	moduleName  = strings.NewReplacer("-", "_")
)

// modules returns the files of kernelModules and of what they depend on, each after its own dependencies.
func modules(t *testing.T) []string {
	t.Helper()
	files := map[string]string{}
	root, err := filepath.EvalSymlinks(artifact(t, "modules"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[moduleName.Replace(name)] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	var add func(name string)
	add = func(name string) {
		path, ok := files[moduleName.Replace(name)]
		if !ok {
			t.Fatalf("no kernel module %s", name)
		}
		if slices.Contains(order, path) {
			return
		}
		if depends := dependsLine.FindStringSubmatch(readFile(t, path)); depends != nil && depends[1] != "" {
			for name := range strings.SplitSeq(depends[1], ",") {
				add(name)
			}
		}
		order = append(order, path)
	}
	for _, name := range kernelModules {
		add(name)
	}
	return order
}

// putStage1 makes an initial RAM disk's tree of stage1 and the modules in dir.
func putStage1(t *testing.T, dir string) {
	t.Helper()
	copyFile(t, artifact(t, "stage1"), filepath.Join(dir, "init"), 0o755)
	var order strings.Builder
	for _, path := range modules(t) {
		name := "/modules/" + filepath.Base(path)
		copyFile(t, path, filepath.Join(dir, name), 0o644)
		order.WriteString(name + "\n")
	}
	write(t, filepath.Join(dir, "modules/order"), order.String())
}

// pack makes an initial RAM disk of a tree.
func pack(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "initrd")
	run(t, nil, "sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet >"$2"`, "sh", dir, path)
	return path
}

// installOptions are variables of "make install".
type installOptions []string

// install lays policyd down in a tree as an image builder does.
func install(t *testing.T, dir string, o installOptions) {
	t.Helper()
	run(t, append(o, "DESTDIR="+dir, "POLICYD="+artifact(t, "policyd"), "INIT_SHIM="+artifact(t, "portcullis-init"),
		"SBOM="+artifact(t, "policyd.cdx.json")), "../install.sh")
}

// putTests adds the fake agent and the tests to a tree.
func putTests(t *testing.T, dir string, p pod) {
	t.Helper()
	copyFile(t, artifact(t, "kata-agent"), filepath.Join(dir, "usr/bin/kata-agent"), 0o755)
	copyFile(t, artifact(t, "guest.test"), filepath.Join(dir, "guesttest/guest.test"), 0o755)
	write(t, filepath.Join(dir, "guesttest/pod.rego"), string(p.policy))
	write(t, filepath.Join(dir, "guesttest/pod.jsonl"), string(p.cases))
	write(t, filepath.Join(dir, "guesttest/fragment.txt"), string(fragment.Text(p.fragment)))
	write(t, filepath.Join(dir, "guesttest/update.jsonl"), string(p.updates))
	write(t, filepath.Join(dir, "guesttest/initdata.toml"), string(p.initdata.Bytes()))
}

// putUnits adds the units that a Kata image has, and those that run the tests, and removes those that it lacks but for patterns to
// keep.
func putUnits(t *testing.T, dir string, keep ...string) {
	t.Helper()
	units := filepath.Join(dir, "usr/lib/systemd/system")
	files, err := filepath.Glob("units/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("units: %v", err)
	}
	for _, f := range files {
		copyFile(t, f, filepath.Join(units, filepath.Base(f)), 0o644)
	}
	for _, name := range []string{"guesttest-setup.service", "guesttest.service"} {
		wants := filepath.Join(units, "kata-containers.target.wants")
		if err := os.MkdirAll(wants, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../"+name, filepath.Join(wants, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Kata's images have neither journal nor udev, nor most of them directories made at boot.
	for _, pattern := range []string{"systemd-journal*", "*.wants/systemd-journal*", "systemd-udev*", "*.wants/systemd-udev*", "*.wants/systemd-tmpfiles-setup*"} {
		if slices.Contains(keep, pattern) {
			continue
		}
		found, err := filepath.Glob(filepath.Join(units, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sealed is a root filesystem with its dm-verity tree behind it on one disk.
type sealed struct {
	path  string
	table string // with commas for spaces
}

// options of the kernel command line that open it.
func (s sealed) cmdline() string { return "guesttest.verity=" + s.table }

// seal makes an ext4 image of a tree and appends the superblock and tree of package verity.
func seal(t *testing.T, dir, path string) sealed {
	t.Helper()
	run(t, []string{"SOURCE_DATE_EPOCH=0", "E2FSPROGS_FAKE_TIME=1"}, "mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal",
		"-U", "6f1f35a2-7b59-4d2f-9f0a-6a6b5a3c9d01", "-E", "hash_seed=6f1f35a2-7b59-4d2f-9f0a-6a6b5a3c9d02", "-d", dir, path, "320M")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := verity.Format(io.NewSectionReader(f, 0, size), size, io.NewOffsetWriter(f, size+verity.BlockSize), verity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	block, err := tree.Superblock([16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(block, size); err != nil {
		t.Fatal(err)
	}
	// A guest that meets a block that does not match stops at once.
	table := tree.Table("/dev/vda", "/dev/vda", tree.DataBlocks+1) + " 1 panic_on_corruption"
	return sealed{path, strings.ReplaceAll(table, " ", ",")}
}

// flip changes one bit of a program within an image, in the block that its code starts in: dm-verity checks a block when it is
// read, and that one always is.
func flip(t *testing.T, image, file string) {
	t.Helper()
	program, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	text := program.Section(".text")
	if text == nil {
		t.Fatalf("%s has no code", file)
	}
	content, all := []byte(readFile(t, file)), []byte(readFile(t, image))
	start := int(program.Entry-text.Addr+text.Offset) &^ (verity.BlockSize - 1)
	at := bytes.Index(all, content[start:start+verity.BlockSize])
	if at < 0 {
		t.Fatalf("%s is not found in the image", file)
	}
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{all[at+100] ^ 1}, int64(at+100))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unpack puts the Debian tree into a new directory.
func unpack(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "tar", "-C", dir, "-xf", artifact(t, "base.tar"))
	return dir
}

// systemdTree is a guest's tree with policyd, the fake agent and the tests.
func systemdTree(t *testing.T, p pod, o installOptions, keep ...string) string {
	t.Helper()
	dir := unpack(t)
	install(t, dir, o)
	putTests(t, dir, p)
	putUnits(t, dir, keep...)
	return dir
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(readFile(t, from)), mode); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run executes a command with variables added to the environment.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
