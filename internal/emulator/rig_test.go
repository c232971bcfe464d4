// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"portcullis/internal/emulator/containerd"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/recordings"
	"portcullis/internal/emulator/shim"
)

// rig is what a set of recordings was made on.
type rig struct {
	release    containerd.Release
	shim       shim.Config
	layout     string
	hostImages bool
}

func rigOf(set string) (rig, bool) {
	peer := shim.Config{Kind: shim.Go, GuestPull: true, PullMetadata: true}
	shared := rig{release: containerd.V2_4, shim: shim.Config{Kind: shim.Go, SharedFiles: true, EmptyDirs: shim.HostDirs, Network: true}, layout: "images-accounts.tgz", hostImages: true}
	switch {
	case strings.HasPrefix(set, "containerd-1.7"):
		return rig{release: containerd.V1_7, shim: peer, layout: "images.tgz"}, true
	case strings.HasPrefix(set, "containerd-2.4"), strings.HasPrefix(set, "controllers"):
		return rig{release: containerd.V2_4, shim: peer, layout: "images.tgz"}, true
	case set == "runtime-rs-4.1.0_peer-pods":
		peer.Kind = shim.RuntimeRS
		return rig{release: containerd.V2_4, shim: peer, layout: "images.tgz"}, true
	case set == "runtime-rs-4.1.0_shared-fs":
		shared.shim.Kind = shim.RuntimeRS
		return shared, true
	case set == "shim-go-4.1.0_shared-fs":
		return shared, true
	}
	return rig{}, false
}

// rigCapabilities are those that the recording machine had.
func rigCapabilities() []string {
	return slices.DeleteFunc(containerd.AllCapabilities(), func(c string) bool { return c == "CAP_SYS_RESOURCE" })
}

// unknownIP stands for the pod's address until it is known.
const unknownIP = "10.255.255.255"

// nodeOf is the node of a recording: what it says of services, addresses and files, which no manifest has.
func nodeOf(recorded recordings.Pod) *node.Node {
	env := recordedEnv(recorded)
	n := node.Default(1)
	n.Services, n.PodIP = servicesOf(env), unknownIP
	if strings.Contains(recorded.Set, "kubelet-1.34") {
		n.Kubelet = 34
	}
	if ip := env["HOST_IP"]; ip != "" {
		n.IP = ip
	}
	if size, err := strconv.ParseInt(env["EPHL"], 10, 64); err == nil {
		n.Storage = size
	}
	for _, r := range recorded.Requests {
		if i, ok := r.Input["interface"].(map[string]any); ok {
			n.PodMAC = i["hwAddr"].(string)
			n.PodLinkLocal = i["IPAddresses"].([]any)[1].(map[string]any)["address"].(string)
		}
		if lines, ok := r.Input["dns"].([]any); ok {
			n.NodeDNS = dnsOf(texts(lines))
		}
	}
	n.Files["/etc/hosts"] = hostfs.File{Mode: hostfs.Regular | 0o644, Data: make([]byte, 49)}
	addHostFiles(n, recorded)
	return n
}

// dnsOf is the resolv.conf of a pod in the node's network, which is the node's own.
func dnsOf(lines []string) node.DNS {
	var out node.DNS
	if strings.Contains(lines[0], "example.org") {
		out.Searches = []string{"example.org"}
	}
	for _, line := range lines {
		if server, ok := strings.CutPrefix(line, "nameserver "); ok {
			out.Servers = append(out.Servers, server)
		}
	}
	return out
}

// recordedEnv are the variables of all containers.
func recordedEnv(recorded recordings.Pod) map[string]string {
	env := map[string]string{}
	for _, r := range recorded.Requests {
		if r.Annotations() == nil {
			continue
		}
		for _, e := range texts(r.Input["OCI"].(map[string]any)["Process"].(map[string]any)["Env"]) {
			name, value, _ := strings.Cut(e, "=")
			env[name] = value
		}
	}
	return env
}

var portVariable = regexp.MustCompile("^([A-Z0-9_]+)_PORT_([0-9]+)_(TCP|UDP|SCTP)$")

// servicesOf are the services that the variables tell of.
func servicesOf(env map[string]string) []node.Service {
	services := map[string]*node.Service{}
	for key, url := range env {
		m := portVariable.FindStringSubmatch(key)
		if m == nil {
			continue
		}
		s := services[m[1]]
		if s == nil {
			s = &node.Service{Name: strings.ToLower(strings.ReplaceAll(m[1], "_", "-"))}
			services[m[1]] = s
		}
		_, rest, _ := strings.Cut(url, "://")
		s.IP, _, _ = strings.Cut(rest, ":")
		port := node.Port{Protocol: m[3]}
		port.Port, _ = strconv.Atoi(m[2])
		for key, value := range env {
			if name, ok := strings.CutPrefix(key, m[1]+"_SERVICE_PORT_"); ok && value == m[2] {
				port.Name = strings.ToLower(name)
			}
		}
		if m[2] == env[m[1]+"_SERVICE_PORT"] {
			s.Ports = slices.Insert(s.Ports, 0, port)
		} else {
			s.Ports = append(s.Ports, port)
		}
	}
	var out []node.Service
	for _, s := range services {
		out = append(out, *s)
	}
	return out
}

// podIP is the address of the recorded pod: from its interface, else the one with
// which the recorded digest of /etc/hosts comes out right.
func podIP(recorded recordings.Pod, hosts []byte) string {
	want := ""
	for _, r := range recorded.Requests {
		if at, ok := r.Input["path"].(string); ok && strings.HasSuffix(at, "-hosts") {
			want, _ = r.Input["data_sha256"].(string)
		}
		if i, ok := r.Input["interface"].(map[string]any); ok {
			return i["IPAddresses"].([]any)[0].(map[string]any)["address"].(string)
		}
	}
	for last := range 256 {
		ip := fmt.Sprintf("10.244.1.%d", last)
		sum := sha256.Sum256(bytes.ReplaceAll(hosts, []byte(unknownIP), []byte(ip)))
		if hex.EncodeToString(sum[:]) == want {
			return ip
		}
	}
	if ip := recordedEnv(recorded)["POD_IP"]; ip != "" {
		return ip
	}
	return unknownIP
}

const sharedDir = "/run/kata-containers/shared/containers/"

// addHostFiles gives the node the files that the recorded pod found at the paths of
// its hostPath volumes. What they hold is not recorded.
func addHostFiles(n *node.Node, recorded recordings.Pod) {
	volumes := hostPaths(recorded.Manifest)
	for _, r := range recorded.Requests {
		at, ok := r.Input["path"].(string)
		if !ok {
			continue
		}
		first, below, _ := strings.Cut(strings.TrimPrefix(at, sharedDir), "/")
		parts := strings.SplitN(first, "-", 3)
		dir := volumes[parts[len(parts)-1]]
		if dir == "" {
			continue
		}
		file := hostfs.File{Mode: uint32(r.Input["file_mode"].(float64)), UID: uint32(r.Input["uid"].(float64)), GID: uint32(r.Input["gid"].(float64))}
		if target, ok := r.Input["symlink_target"].(string); ok {
			file.Data = []byte(target)
		} else if size := int(r.Input["file_size"].(float64)); file.Type() == hostfs.Regular {
			file.Data = make([]byte, size)
		}
		n.Files[path.Join(dir, below)] = file
	}
}

// hostPaths are the paths of hostPath volumes by the last part of the path where they are mounted.
func hostPaths(manifest []byte) map[string]string {
	var pod corev1.Pod
	out := map[string]string{}
	if yaml.Unmarshal(bytes.SplitN(manifest, []byte("\n---"), 2)[0], &pod) != nil {
		return out
	}
	for _, c := range pod.Spec.Containers {
		for _, m := range c.VolumeMounts {
			for _, v := range pod.Spec.Volumes {
				if v.Name == m.Name && v.HostPath != nil {
					out[path.Base(m.MountPath)] = v.HostPath.Path
				}
			}
		}
	}
	return out
}
