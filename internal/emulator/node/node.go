// SPDX-License-Identifier: Apache-2.0

// Package node says what an emulated node and its cluster are like, wherever a
// pod shows it: names, addresses, services, files, and what is drawn at random.
package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"portcullis/internal/emulator/hostfs"
)

// Node is a node of a cluster and what the cluster gives to its pods.
type Node struct {
	Name, IP      string
	Kubelet       int // minor version of Kubernetes 1
	PodIP         string
	PodMAC        string
	PodLinkLocal  string // IPv6 address of the pod's interface, "" for none
	Gateway       string // of the pod's network
	Memory        int64  // bytes; the OOM score of a burstable container is its share
	CPUs          int64
	Storage       int64  // bytes of ephemeral storage
	ClusterDNS    string // address of the cluster's name server
	ClusterDomain string // "cluster.local"
	NodeDNS       DNS    // the node's own resolv.conf
	Services      []Service
	ClusterCA     []byte // kube-root-ca.crt
	Files         hostfs.FS
	ContainerdDir string    // containerd's state directory, "/run/containerd"
	Time          time.Time // of the pod's start

	// VFIO are the extended resources whose devices the node passes through.
	VFIO []string

	// Unknown gives the data of a ConfigMap or Secret that is not in the manifest; nil refuses pods that need one. The value of
	// the key EveryKey stands for those of all keys that are asked for.
	Unknown func(kind, name string) map[string][]byte

	Random *Random
}

// EveryKey is no key that an object can have.
const EveryKey = "*"

// DNS is a resolv.conf.
type DNS struct{ Servers, Searches, Options []string }

// Service is a service with a cluster address, in the pod's namespace or named kubernetes.
type Service struct {
	Name, IP string
	Ports    []Port
}

// Port is a port of a service.
type Port struct {
	Name     string // may be empty
	Port     int
	Protocol string // "TCP"
}

// Default is a node with the usual names, whose random choices follow from seed.
func Default(seed uint64) *Node {
	return &Node{
		Name: "node1", Kubelet: 37, IP: "192.168.77.2", PodIP: "10.244.1.7", PodMAC: "f6:53:02:81:1a:94", PodLinkLocal: "fe80::f453:2ff:fe81:1a94", Gateway: "10.244.1.1", Memory: 24 << 30, CPUs: 8, Storage: 100 << 30,
		ClusterDNS: "10.96.0.10", ClusterDomain: "cluster.local",
		NodeDNS:       DNS{Servers: []string{"192.168.77.1"}, Searches: []string{"example.org"}},
		Services:      []Service{{Name: "kubernetes", IP: "10.96.0.1", Ports: []Port{{Name: "https", Port: 443, Protocol: "TCP"}}}},
		ClusterCA:     []byte("-----BEGIN CERTIFICATE-----\nZW11bGF0ZWQ=\n-----END CERTIFICATE-----\n"),
		Files:         hostfs.FS{},
		ContainerdDir: "/run/containerd", VFIO: []string{"nvidia.com/pgpu"},
		Time:   time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
		Random: NewRandom(seed),
	}
}

// ServiceVariables are the variables that name the cluster's services. Without links there are only those of the API server.
func (n *Node) ServiceVariables(links bool) map[string]string {
	out := map[string]string{}
	for _, s := range n.Services {
		if links || s.Name == "kubernetes" {
			maps.Copy(out, s.variables())
		}
	}
	return out
}

func (s Service) variables() map[string]string {
	name := envName(s.Name)
	first := fmt.Sprint(s.Ports[0].Port)
	out := map[string]string{
		name + "_SERVICE_HOST": s.IP, name + "_SERVICE_PORT": first,
		name + "_PORT": s.Ports[0].url(s.IP),
	}
	for _, p := range s.Ports {
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+envName(p.Name)] = fmt.Sprint(p.Port)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, p.Protocol)
		maps.Copy(out, map[string]string{
			prefix: p.url(s.IP), prefix + "_PROTO": strings.ToLower(p.Protocol),
			prefix + "_PORT": fmt.Sprint(p.Port), prefix + "_ADDR": s.IP,
		})
	}
	return out
}

func (p Port) url(ip string) string {
	return fmt.Sprintf("%s://%s:%d", strings.ToLower(p.Protocol), ip, p.Port)
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// Lines are the lines of a resolv.conf, as a runtime writes it.
func (d DNS) Lines() []string {
	var out []string
	if len(d.Searches) > 0 {
		out = append(out, "search "+strings.Join(d.Searches, " "))
	}
	for _, server := range d.Servers {
		out = append(out, "nameserver "+server)
	}
	if len(d.Options) > 0 {
		out = append(out, "options "+strings.Join(d.Options, " "))
	}
	return slices.Clip(out)
}
