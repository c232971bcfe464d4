// SPDX-License-Identifier: Apache-2.0

// Package apiservertest starts a real Kubernetes API server for tests: etcd, kube-apiserver, and the controllers that make pods of
// Deployments. Nothing runs the pods.
package apiservertest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Server is an API server with an administrator's connection.
type Server struct {
	Authority *Authority // signs the certificates of this cluster
	Address   string

	t      testing.TB
	dir    string
	client *http.Client
	etcd   string
	server *exec.Cmd
}

// Start starts what lies in a folder: etcd/etcd, kubernetes-*/kube-apiserver and kube-controller-manager. The processes end with
// the test.
func Start(t testing.TB, bin string) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{t: t, dir: dir, Authority: NewAuthority(t, dir), Address: "127.0.0.1:" + port(t), etcd: "http://127.0.0.1:" + port(t)}
	for _, name := range []string{"server", "accounts"} {
		s.Authority.Issue(name, "kube-apiserver", "")
	}
	s.Authority.Issue("admin", "admin", "system:masters")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "admin.crt"), filepath.Join(dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Authority.PEM())
	s.client = &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}}}
	peers := "http://127.0.0.1:" + port(t)
	s.run(program(t, bin, "etcd/etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", s.etcd, "--advertise-client-urls", s.etcd,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers, "--unsafe-no-fsync", "--log-level", "warn")
	s.startServer(program(t, bin, "kubernetes-*/kube-apiserver"))
	s.controllers(program(t, bin, "kubernetes-*/kube-controller-manager"))
	return s
}

func program(t testing.TB, bin, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(bin, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no %s in %s: make api-server builds it", pattern, bin)
	}
	return found[len(found)-1]
}

func (s *Server) startServer(path string) {
	at := func(name string) string { return filepath.Join(s.dir, name) }
	_, port, _ := net.SplitHostPort(s.Address)
	s.server = s.run(path, "--etcd-servers="+s.etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--service-cluster-ip-range=10.96.0.0/16", "--tls-cert-file="+at("server.crt"), "--tls-private-key-file="+at("server.key"), "--client-ca-file="+at("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+at("accounts.pub"),
		"--service-account-signing-key-file="+at("accounts.key"), "--authorization-mode=AlwaysAllow", "--endpoint-reconciler-type=none")
	s.Eventually(s.t, "the API server is ready", func() error { _, err := s.Get("/readyz"); return err })
}

func (s *Server) controllers(path string) {
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: t, cluster: {server: \"https://%s\", certificate-authority: %s}}]\n"+
		"users: [{name: t, user: {client-certificate: %s, client-key: %s}}]\ncontexts: [{name: t, context: {cluster: t, user: t}}]\ncurrent-context: t\n",
		s.Address, filepath.Join(s.dir, "ca.crt"), filepath.Join(s.dir, "admin.crt"), filepath.Join(s.dir, "admin.key"))
	file := filepath.Join(s.dir, "admin.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run(path, "--kubeconfig="+file, "--leader-elect=false", "--secure-port=0", "--service-account-private-key-file="+filepath.Join(s.dir, "accounts.key"),
		"--root-ca-file="+filepath.Join(s.dir, "ca.crt"),
		"--controllers=serviceaccount-controller,root-ca-certificate-publisher-controller,deployment-controller,replicaset-controller,statefulset-controller")
	s.Eventually(s.t, "the default account is there", func() error {
		_, err := s.Get("/api/v1/namespaces/default/serviceaccounts/default")
		return err
	})
}

// Restart ends the API server and starts it again after do.
func (s *Server) Restart(do func()) {
	path := s.server.Path
	s.stop(s.server)
	do()
	s.startServer(path)
}

// run starts a program whose output is shown when the test fails.
func (s *Server) run(path string, args ...string) *exec.Cmd {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(path)+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		s.stop(cmd)
		if s.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			s.t.Logf("%s: %s", filepath.Base(path), text[max(0, len(text)-3000):])
		}
	})
	return cmd
}

func (s *Server) stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
	}
}

// Eventually tries until it works; after two minutes the test is over.
func (s *Server) Eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("never: %s: %v", what, err)
}

// Get reads a path.
func (s *Server) Get(path string) ([]byte, error) { return s.Do(http.MethodGet, path, nil) }

// Do sends an object, JSON, as the administrator. An answer that is no success is an error with what the server said.
func (s *Server) Do(method, path string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, "https://"+s.Address+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= http.StatusMultipleChoices {
		var status struct{ Message string }
		if json.Unmarshal(text, &status) != nil || status.Message == "" {
			status.Message = strings.TrimSpace(string(text))
		}
		return nil, fmt.Errorf("%d %s", answer.StatusCode, status.Message)
	}
	return text, nil
}

// port is one that nothing listens on.
func port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}
