// SPDX-License-Identifier: Apache-2.0

// Package kubelet makes of a pod what the kubelet asks of its container runtime, and the files that it writes for it.
package kubelet

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/cri"
	"portcullis/internal/emulator/hostfs"
	"portcullis/internal/emulator/node"
)

// ErrRefused is returned for a pod that no kubelet would start.
var ErrRefused = errors.New("the kubelet refuses the pod")

// dir is the kubelet's directory of a pod.
const dir = "/var/lib/kubelet/pods/"

// Kubelet runs one pod.
type Kubelet struct {
	node    *node.Node
	pod     controller.Pod
	files   hostfs.FS         // of the node, which the kubelet adds to
	sources map[string]source // volumes by name
}

// New writes the volumes of a pod. Files are the node's and get the pod's added.
func New(n *node.Node, pod controller.Pod, files hostfs.FS) (*Kubelet, error) {
	k := &Kubelet{node: n, pod: pod, files: files, sources: map[string]source{}}
	for _, v := range pod.Spec.Volumes {
		s, err := k.volume(v)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		k.sources[v.Name] = s
	}
	files[k.hostsPath()] = hostfs.File{Mode: hostfs.Regular | 0o644, Data: k.hosts()}
	return k, nil
}

func (k *Kubelet) dir(elements ...string) string {
	return dir + string(k.pod.UID) + "/" + path.Join(elements...)
}

// Sandbox is the configuration of the pod's sandbox.
func (k *Kubelet) Sandbox() cri.Sandbox {
	spec, host := &k.pod.Spec, k.pod.Spec.HostNetwork
	out := cri.Sandbox{
		Name: k.pod.Name, Namespace: k.pod.Namespace, UID: string(k.pod.UID),
		LogDirectory: fmt.Sprintf("/var/log/pods/%s_%s_%s", k.pod.Namespace, k.pod.Name, k.pod.UID),
		DNS:          k.dns(), Annotations: maps.Clone(k.pod.Annotations),
		CgroupParent: k.cgroup(), Sysctls: map[string]string{},
		RunAsUser: spec.SecurityContext.RunAsUser, RunAsGroup: spec.SecurityContext.RunAsGroup,
		HostNetwork: host, HostPID: spec.HostPID, HostIPC: spec.HostIPC, SharePIDs: spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace,
		Resources: k.sandboxResources(),
	}
	if !host {
		out.Hostname, _ = k.hostname()
	}
	for _, s := range spec.SecurityContext.Sysctls {
		out.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	out.Privileged = slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), privileged)
	return out
}

func privileged(c corev1.Container) bool { return isTrue(c.SecurityContext.Privileged) }

func isTrue(b *bool) bool { return b != nil && *b }

// Container is the configuration of a container whose image has this configuration.
func (k *Kubelet) Container(c *corev1.Container, image images.Config) (cri.Container, error) {
	env, err := k.env(c)
	if err != nil {
		return cri.Container{}, err
	}
	values := map[string]string{}
	for _, v := range env {
		values[v.Name] = v.Value
	}
	mounts, err := k.mounts(c, values)
	if err != nil {
		return cri.Container{}, err
	}
	security, err := k.security(c, image)
	if err != nil {
		return cri.Container{}, err
	}
	return cri.Container{
		Name: c.Name, Image: c.Image, WorkingDir: expand(c.WorkingDir, values),
		Command: expandAll(c.Command, values), Args: expandAll(c.Args, values),
		Env: env, Mounts: mounts, Devices: k.devices(c), VFIO: k.vfio(c), Stdin: c.Stdin, TTY: c.TTY,
		Resources: resources(k.limited(c)), OOMScoreAdj: k.oomScore(c),
		Security: security, ReadonlyRoot: isTrue(c.SecurityContext.ReadOnlyRootFilesystem),
	}, nil
}

// hostname returns the pod's host name and its domain, which is empty without a subdomain.
func (k *Kubelet) hostname() (name, domain string) {
	if over := k.pod.Spec.HostnameOverride; over != nil {
		return cut(*over), ""
	}
	name = k.pod.Spec.Hostname
	if name == "" {
		name = cut(k.pod.Name)
	}
	if k.pod.Spec.Subdomain != "" {
		domain = strings.Join([]string{k.pod.Spec.Subdomain, k.pod.Namespace, "svc", k.node.ClusterDomain}, ".")
	}
	if isTrue(k.pod.Spec.SetHostnameAsFQDN) && domain != "" {
		name += "." + domain
	}
	return name, domain
}

// cut shortens a host name to what Linux takes.
func cut(name string) string {
	if len(name) <= 63 {
		return name
	}
	return strings.TrimRight(name[:63], "-.")
}

func (k *Kubelet) podIP() string {
	if k.pod.Spec.HostNetwork {
		return k.node.IP
	}
	return k.node.PodIP
}

func (k *Kubelet) hostsPath() string { return k.dir("etc-hosts") }

// hosts is the text of the pod's /etc/hosts.
func (k *Kubelet) hosts() []byte {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file" + map[bool]string{true: " (host network).\n", false: ".\n"}[k.pod.Spec.HostNetwork])
	if k.pod.Spec.HostNetwork {
		b.Write(k.files["/etc/hosts"].Data)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		name, domain := k.hostname()
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", k.podIP(), name, domain, name)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", k.podIP(), name)
		}
	}
	if len(k.pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range k.pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}

// dns is the pod's resolv.conf.
func (k *Kubelet) dns() cri.DNS {
	policy := k.pod.Spec.DNSPolicy
	var out cri.DNS
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault || policy == corev1.DNSClusterFirst && k.pod.Spec.HostNetwork:
		out = cri.DNS{Servers: slices.Clone(k.node.NodeDNS.Servers), Searches: slices.Clone(k.node.NodeDNS.Searches), Options: slices.Clone(k.node.NodeDNS.Options)}
	default:
		domain := k.node.ClusterDomain
		out = cri.DNS{
			Servers:  []string{k.node.ClusterDNS},
			Searches: slices.Concat([]string{k.pod.Namespace + ".svc." + domain, "svc." + domain, domain}, k.node.NodeDNS.Searches),
			Options:  slices.Concat([]string{"ndots:5"}, k.node.NodeDNS.Options),
		}
	}
	if more := k.pod.Spec.DNSConfig; more != nil {
		out.Servers = addMissing(out.Servers, more.Nameservers)
		out.Searches = addMissing(out.Searches, more.Searches)
		out.Options = mergeOptions(out.Options, more.Options)
	}
	return out
}

func addMissing(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// mergeOptions lets the pod's options replace those of the same name.
func mergeOptions(list []string, more []corev1.PodDNSConfigOption) []string {
	for _, o := range more {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		named := func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name }
		if i := slices.IndexFunc(list, named); i >= 0 {
			list[i] = text
		} else {
			list = append(list, text)
		}
	}
	return list
}
