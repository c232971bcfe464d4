// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"portcullis/images"
	"portcullis/images/containerd"
	"portcullis/internal/imagestest"
)

// need says how to get what the test needs, and skips, or fails where CI is set.
func need(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what)
}

// daemon starts a containerd of the test's own and returns its socket.
func daemon(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"containerd", "ctr"} {
		if _, err := exec.LookPath(tool); err != nil {
			need(t, tool+" is missing: install containerd")
		}
	}
	if os.Getuid() != 0 {
		need(t, "containerd must run as root")
	}
	// A socket's path is short: 108 bytes.
	dir, err := os.MkdirTemp("", "ctrd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, config := filepath.Join(dir, "s"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		dir+"/root", dir+"/state", socket, socket+".ttrpc")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		<-exited
		log.Close()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(log.Name())
			t.Fatalf("containerd does not listen: %s", out)
		}
	}
}

func ctr(t *testing.T, socket string, args ...string) string {
	t.Helper()
	out, err := exec.Command("ctr", append([]string{"-a", socket, "-n", containerd.Namespace}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %v: %v: %s", args, err, out)
	}
	return string(out)
}

// load imports an image for two architectures, named app:v1, and returns its index and one manifest.
func load(t *testing.T, socket string) (index, manifest ocispec.Descriptor) {
	t.Helper()
	made, dir := imagestest.NewStore(), t.TempDir()
	big := strings.Repeat("x", 3<<20) // more than one message
	sample := imagestest.WithFiles(images.Config{User: "web"}, map[string]string{
		"etc/passwd": "web:x:1000:1000:::\n", "etc/group": "", "big": big,
	})
	sample.Compression = imagestest.None
	arm := sample
	arm.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	manifest = made.Add("", sample)
	index = made.AddIndex("app:v1", manifest, made.Add("", arm))
	if err := made.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "a.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	ctr(t, socket, "images", "import", "--no-unpack", "--all-platforms", "--digests", archive)
	return index, manifest
}

func TestImagesOfARunningContainerd(t *testing.T) {
	socket := daemon(t)
	index, manifest := load(t, socket)
	s, err := containerd.New(socket, containerd.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref, err := images.ParseReference("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []images.Reference{ref, ref.WithDigest(index.Digest), ref.WithDigest(manifest.Digest)} {
		img, err := images.Open(t.Context(), s, r, images.Options{})
		if err != nil {
			t.Errorf("%s: %v (held: %s)", r, err, ctr(t, socket, "images", "ls"))
			continue
		}
		id, err := img.Identity(t.Context(), img.Config.User, images.WhenNamed)
		if err != nil || id.UID != 1000 || img.Digests.Manifest != manifest.Digest {
			t.Errorf("%s: %+v, %v, %+v", r, id, err, img.Digests)
		}
	}
	other, err := images.ParseReference("app:v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []images.Reference{other, ref.WithDigest(digest.FromString("absent"))} {
		if _, err := images.Open(t.Context(), s, absent, images.Options{}); !errors.Is(err, images.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", absent, err)
		}
	}
	img, err := images.Open(t.Context(), s, ref, images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctr(t, socket, "content", "rm", img.Layers[0].Digest.String())
	if _, err := img.Accounts(t.Context()); err == nil || !strings.Contains(err.Error(), "pull it again") {
		t.Errorf("layer discarded: %v", err)
	}
}

func TestADaemonThatIsNotThereIsAFailureNotAnAbsence(t *testing.T) {
	s, err := containerd.New(filepath.Join(t.TempDir(), "absent"), containerd.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref, err := images.ParseReference("app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Open(t.Context(), s, ref, images.Options{}); err == nil || errors.Is(err, images.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
