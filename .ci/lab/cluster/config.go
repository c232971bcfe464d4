// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"portcullis/ci/lab/registry"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	criSocket        = "/run/lab-cri.sock"
	registryAddress  = "127.0.0.1:5000"
)

// containerdConfig is Kata's usual one: a runtime of its own, no host devices for privileged containers, Kata's annotations
// passed on.
func containerdConfig(major string) string {
	cri, images, sandbox := `plugins."io.containerd.grpc.v1.cri"`, `plugins."io.containerd.grpc.v1.cri"`, "sandbox_image = \""+registry.PauseImage+"\"\n"
	version, pinned, plugins := 2, "", `bin_dir = "/lab/cni"`
	if major != "1" {
		cri, images, version, sandbox = `plugins."io.containerd.cri.v1.runtime"`, `plugins."io.containerd.cri.v1.images"`, 3, ""
		plugins = `bin_dirs = ["/lab/cni"]`
		pinned = fmt.Sprintf("[%s.pinned_images]\n  sandbox = %q\n", images, registry.PauseImage)
	}
	return fmt.Sprintf(`version = %d
disabled_plugins = ["io.containerd.nri.v1.nri"]
[%s]
  %sdisable_apparmor = true
[%s.containerd]
  default_runtime_name = "kata"
[%s.containerd.runtimes.kata]
  runtime_type = "io.containerd.kata.v2"
  privileged_without_host_devices = true
  pod_annotations = ["io.katacontainers.*"]
[%s.cni]
  %s
  conf_dir = "/etc/lab-cni"
[%s.registry]
  config_path = "/etc/lab-registry"
%s`, version, cri, sandbox, cri, cri, cri, plugins, images, pinned)
}

// Containerd 1.6 has no CNI plugin of its own for the loopback device: the lab's plugin answers to that name too.
const cniConfig = `{"cniVersion": "0.4.0", "name": "lab", "plugins": [{"type": "lab-cni"}]}`

const registryHosts = `[host."http://` + registryAddress + `"]
  capabilities = ["pull", "resolve"]
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix://` + criSocket + `
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /etc/lab-resolv.conf
failSwapOn: false
%sevictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
maxPods: 200
syncFrequency: 5s
staticPodPath: ` + StaticPods + `
fileCheckFrequency: 2s
registryPullQPS: 0
kubeAPIQPS: 500
kubeAPIBurst: 500
eventRecordQPS: 0
serializeImagePulls: false
allowedUnsafeSysctls: ["net.*", "kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*"]
systemReserved: {}
enableDebuggingHandlers: false
readOnlyPort: 0
`

// kubeletSettings: control groups of version 1 are refused by default from 1.35 on, and 1.30 does not know the field.
func kubeletSettings(minor int) string {
	v1 := ""
	if minor >= 31 {
		v1 = "failCgroupV1: false\n"
	}
	return fmt.Sprintf(kubeletConfig, v1)
}

func kubeconfig(user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:6443", certificate-authority: /lab/certificates/ca.crt}}]
users: [{name: lab, user: {client-certificate: /lab/certificates/%[1]s.crt, client-key: /lab/certificates/%[1]s.key}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
current-context: lab
`, user)
}

// configure writes every configuration file and the links by which containerd finds the lab's program as shim and as CNI plugin.
func (o Options) configure(self string) error {
	files := map[string]string{
		"/etc/lab-containerd.toml":              containerdConfig(o.containerdMajor()),
		"/etc/lab-cni/10-lab.conflist":          cniConfig,
		"/etc/lab-registry/_default/hosts.toml": registryHosts,
		"/etc/lab-kubelet.yaml":                 kubeletSettings(o.kubernetesMinor()),
		"/etc/lab-resolv.conf":                  "nameserver 192.0.2.53\nsearch example.internal\n",
		"/etc/lab-kubelet.conf":                 kubeconfig("kubelet"),
		"/etc/lab-controllers.conf":             kubeconfig("admin"),
		"/etc/hosts":                            "127.0.0.1 localhost\n" + NodeIP + " " + NodeName + "\n",
		"/srv/lab/directory/file":               "from the host\n",
		"/srv/lab/directory/below/script":       "#!/bin/sh\n",
		"/srv/lab/file":                         "from the host\n",
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	if err := os.MkdirAll(StaticPods, 0o755); err != nil {
		return err
	}
	for _, link := range []string{"/lab/bin/containerd-shim-kata-v2", "/lab/cni/lab-cni", "/lab/cni/loopback"} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.Symlink(self, link); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	return nil
}
