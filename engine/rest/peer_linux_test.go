// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv tells this binary, run again, to be a client: URL, and the directory of a cgroup to enter first.
const childEnv = "PORTCULLIS_TEST_CLIENT"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		os.Exit(client(task))
	}
	if task := os.Getenv(floodEnv); task != "" {
		os.Exit(flood(task))
	}
	os.Exit(m.Run())
}

// client enters a cgroup, if one is named, and makes one request. It prints the status or the error.
func client(task string) int {
	url, cgroup, _ := strings.Cut(task, " ")
	if cgroup != "" {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			fmt.Println("cgroup:", err)
			return 3
		}
	}
	resp, err := http.Get(url)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode)
	return 0
}

// runClient runs the client in a process of its own and returns what it printed.
func runClient(t *testing.T, url, cgroup string, tune func(*exec.Cmd)) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+url+" "+cgroup)
	if tune != nil {
		tune(cmd)
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// serveHealth serves behind Listen.
func serveHealth(t *testing.T, address string) string {
	t.Helper()
	l, err := Listen(context.Background(), address, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(health), ReadHeaderTimeout: time.Second}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String() + "/health"
}

// newCgroup makes a cgroup that is not this process's, in whatever hierarchy this machine has, or skips.
func newCgroup(t *testing.T) string {
	t.Helper()
	var last error
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			last = err
			continue
		}
		dir := filepath.Join(root, fmt.Sprintf("kubepods-test-%d", os.Getpid()))
		if last = os.Mkdir(dir, 0o755); last == nil {
			t.Cleanup(func() { _ = unix.Rmdir(dir) })
			return dir
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no cgroup can be made: %v", last)
	}
	t.Skipf("SKIPPED: no cgroup can be made: %v", last)
	return ""
}

func TestAPeerInAContainersCgroupIsHungUpOn(t *testing.T) {
	cgroup := newCgroup(t)
	url := serveHealth(t, "127.0.0.1:0")
	if got := runClient(t, url, "", nil); got != "200" {
		t.Fatalf("a client beside the server got %q", got)
	}
	if got := runClient(t, url, cgroup, nil); !strings.HasPrefix(got, "error:") {
		t.Errorf("a client in %s got %q", cgroup, got)
	}
	if got := runClient(t, url, "", nil); got != "200" {
		t.Errorf("a client beside the server got %q afterwards", got)
	}
}

func TestAPeerOverIPv6IsIdentifiedToo(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("SKIPPED: no IPv6: %v", err)
	}
	l.Close()
	cgroup := newCgroup(t)
	url := serveHealth(t, "[::1]:0")
	if got := runClient(t, url, "", nil); got != "200" {
		t.Errorf("got %q", got)
	}
	if got := runClient(t, url, cgroup, nil); !strings.HasPrefix(got, "error:") {
		t.Errorf("in a cgroup: got %q", got)
	}
}

func TestAPeerOfAnotherUserIsHungUpOn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can run a client as another user")
	}
	url := serveHealth(t, "127.0.0.1:0")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join("/tmp", fmt.Sprintf("portcullis-client-%d", os.Getpid())) // where anyone may run it
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, text, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(copied) })
	got := runClient(t, url, "", func(cmd *exec.Cmd) {
		cmd.Path = copied
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
	})
	if !strings.HasPrefix(got, "error:") {
		t.Errorf("got %q", got)
	}
}

func TestASocketThatIsNotThereIsNotFound(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	if s, err := lookUp(a, b); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestDiagAnswersAreReadWithinTheirBounds(t *testing.T) {
	for n := range 200 {
		b := make([]byte, n)
		if n >= 8 {
			b[0], b[4] = byte(n), sockDiagByFamily
		}
		s, err := parseDiag(b)
		if (err == nil) != (n >= headerSize+answerSize) || err == nil && s != (socket{}) {
			t.Errorf("%d bytes: %v, %v", n, s, err)
		}
	}
}
