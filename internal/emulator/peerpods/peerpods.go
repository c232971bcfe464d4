// SPDX-License-Identifier: Apache-2.0

// Package peerpods changes requests as those two parts of cloud-api-adaptor do that stand between a shim and the agent of a peer
// pod: the proxy on the node, and the forwarder in the guest.
package peerpods

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
)

// Proxy is the proxy on the node. It adds annotations to containers.
type Proxy struct {
	CSITargets []string      // sources of volumes that a driver mounts in the guest
	GPUs       bool          // the pod asks for GPUs by default_gpus
	Volumes    []CloudVolume // disks that the cloud attaches
}

// CloudVolume is a disk of the cloud that the forwarder mounts.
type CloudVolume struct {
	MountPoint  string `json:"mount_point"` // in the container
	FSType      string `json:"fs_type"`
	LUN         string `json:"lun"`
	DiskID      string `json:"disk_id"`
	FSGroup     *int64 `json:"fs_group,omitempty"`
	EncryptType string `json:"encrypt_type,omitempty"`
	KeyID       string `json:"key_id,omitempty"`
}

// Annotations of the proxy.
const (
	targets      = "io.confidentialcontainers.org.peerpodvolumes.target_path"
	cloudVolumes = "io.confidentialcontainers.org.cloud_volumes"
	cdi          = "cdi.k8s.io/peer-pods"
)

// Pass returns the request as it leaves the proxy. The original stays as it is.
func (p Proxy) Pass(m proto.Message) (proto.Message, error) {
	create, ok := proto.Clone(m).(*agentpb.CreateContainerRequest)
	if !ok {
		return m, nil
	}
	annotations := maps.Clone(create.OCI.Annotations)
	if len(p.CSITargets) > 0 {
		annotations[targets] = strings.Join(p.CSITargets, ",")
	}
	if p.GPUs {
		annotations[cdi] = "nvidia.com/gpu=all"
	}
	if len(p.Volumes) > 0 {
		volumes := map[string]CloudVolume{}
		for i, v := range p.Volumes {
			volumes[volumeName(i)] = v
		}
		raw, err := json.Marshal(volumes)
		if err != nil {
			return nil, fmt.Errorf("annotate cloud volumes: %w", err)
		}
		annotations[cloudVolumes] = string(raw)
	}
	create.OCI.Annotations = annotations
	return create, nil
}

func volumeName(i int) string { return fmt.Sprintf("vol-%d", i) }

// Namespace is the network namespace of containers in the guest.
const Namespace = "/run/netns/podns"

// volumeDir is where the forwarder mounts disks.
const volumeDir = "/run/cloud-volumes/"

// Forward returns the request as it leaves the forwarder: a container is in the pod's network namespace, and mounts of cloud
// volumes lead to where these are; a sandbox has no name servers. The original stays as it is.
func Forward(m proto.Message) (proto.Message, error) {
	switch r := proto.Clone(m).(type) {
	case *agentpb.CreateSandboxRequest:
		r.Dns = nil
		return r, nil
	case *agentpb.CreateContainerRequest:
		r.OCI.Linux.Namespaces = append(r.OCI.Linux.Namespaces, &agentpb.LinuxNamespace{Type: "network", Path: Namespace})
		return r, mountVolumes(r.OCI)
	}
	return m, nil
}

func mountVolumes(spec *agentpb.Spec) error {
	text, ok := spec.Annotations[cloudVolumes]
	if !ok {
		return nil
	}
	volumes := map[string]CloudVolume{}
	if err := json.Unmarshal([]byte(text), &volumes); err != nil {
		return fmt.Errorf("read cloud volumes: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		for _, m := range spec.Mounts {
			if m.Destination == volumes[name].MountPoint {
				m.Source, m.Type = volumeDir+name, "bind"
			}
		}
	}
	return nil
}
