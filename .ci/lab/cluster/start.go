// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"portcullis/ci/lab/criproxy"
	"portcullis/ci/lab/registry"
)

// Options say which parts run, by the names of their folders below Parts: etcd, containerd-2, kubernetes-1.37.
type Options struct {
	Parts, Containerd, Kubernetes string
	Servers                       string // the release of the API server and the controllers
	Records                       string // folder of the raw records

	ended context.CancelCauseFunc // called when a part ends
}

func (o Options) containerdMajor() string {
	major, _, _ := strings.Cut(strings.TrimPrefix(o.Containerd, "containerd-"), ".")
	return major
}

func (o Options) kubernetesMinor() int {
	_, minor, _ := strings.Cut(o.Kubernetes, ".")
	n, _ := strconv.Atoi(minor)
	return n
}

// Start starts everything, inside the namespaces, and gives the API server once the node is ready. The processes end with the
// namespace.
func Start(ctx context.Context, o Options) (*API, error) {
	ctx, o.ended = context.WithCancelCause(ctx)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := o.configure(self); err != nil {
		return nil, err
	}
	if err := certificates(); err != nil {
		return nil, err
	}
	if err := o.serveImages(); err != nil {
		return nil, err
	}
	if err := o.runtime(ctx); err != nil {
		return nil, err
	}
	if err := o.process("etcd", filepath.Join(o.Parts, "etcd/etcd"), etcdFlags...); err != nil {
		return nil, err
	}
	if err := o.process("kube-apiserver", filepath.Join(o.Parts, o.Servers, "kube-apiserver"), apiserverFlags...); err != nil {
		return nil, err
	}
	api, err := NewAPI()
	if err != nil {
		return nil, err
	}
	if err := until(ctx, "the API server", func() error { _, err := api.Get("/readyz"); return err }); err != nil {
		return nil, err
	}
	if err := o.process("kube-controller-manager", filepath.Join(o.Parts, o.Servers, "kube-controller-manager"), controllerFlags...); err != nil {
		return nil, err
	}
	if err := o.process("kubelet", filepath.Join(o.Parts, o.Kubernetes, "kubelet"), kubeletFlags...); err != nil {
		return nil, err
	}
	return api, until(ctx, "the node", api.nodeReady)
}

func certificates() error {
	a, err := newAuthority(Dir + "/certificates")
	if err != nil {
		return err
	}
	for _, c := range [][3]string{{"server", "kube-apiserver", "lab"}, {"admin", "admin", "system:masters"}, {"kubelet", "system:node:" + NodeName, "system:nodes"}, {"accounts", "accounts", "lab"}} {
		if err := a.certificate(c[0], c[1], c[2]); err != nil {
			return err
		}
	}
	return nil
}

func (o Options) serveImages() error {
	handler, err := registry.Handler()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", registryAddress)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	go http.Serve(listener, handler)
	return nil
}

// runtime starts containerd and the proxy before it.
func (o Options) runtime(ctx context.Context) error {
	if err := o.process("containerd", filepath.Join(o.Parts, o.Containerd, "containerd"), "--config", "/etc/lab-containerd.toml"); err != nil {
		return err
	}
	if err := until(ctx, "containerd", func() error { _, err := os.Stat(containerdSocket); return err }); err != nil {
		return err
	}
	proxy, err := criproxy.New(containerdSocket, o.Records)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", criSocket)
	if err != nil {
		return fmt.Errorf("CRI proxy: %w", err)
	}
	go proxy.Serve(listener)
	return nil
}

var etcdFlags = []string{"--data-dir", "/run/lab-etcd", "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
	"--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "warn"}

var apiserverFlags = []string{"--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + NodeIP, "--secure-port=6443", "--service-cluster-ip-range=10.96.0.0/16",
	"--tls-cert-file=/lab/certificates/server.crt", "--tls-private-key-file=/lab/certificates/server.key", "--client-ca-file=/lab/certificates/ca.crt",
	"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=/lab/certificates/accounts.pub",
	"--service-account-signing-key-file=/lab/certificates/accounts.key", "--authorization-mode=AlwaysAllow", "--allow-privileged=true", "--watch-cache=true"}

var controllerFlags = []string{"--kubeconfig=/etc/lab-controllers.conf", "--service-account-private-key-file=/lab/certificates/accounts.key",
	"--root-ca-file=/lab/certificates/ca.crt", "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=200",
	"--controllers=garbage-collector-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,deployment-controller,replicaset-controller,replicationcontroller-controller,statefulset-controller,daemonset-controller,job-controller,cronjob-controller"}

var kubeletFlags = []string{"--config=/etc/lab-kubelet.yaml", "--kubeconfig=/etc/lab-kubelet.conf", "--hostname-override=" + NodeName, "--node-ip=" + NodeIP, "--v=2"}

// process starts a part; its output goes to a log in the lab's folder.
func (o Options) process(name, path string, args ...string) error {
	if err := os.MkdirAll(Dir+"/logs", 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(Dir, "logs", name+".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := cmd.Wait()
		o.ended(fmt.Errorf("%s ended: %w", name, err))
	}()
	return nil
}

// until tries until it works, or the time is up.
func until(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(context.Cause(ctx), err))
		case <-time.After(300 * time.Millisecond):
		}
	}
}
