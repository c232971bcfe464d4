// SPDX-License-Identifier: Apache-2.0

// Package policydata is the typed form of policy_data: what one pod may ask of
// the Kata agent, as the rules in package rules read it.
//
// The text it writes is deterministic: the same value gives the same bytes on every machine, because those bytes are what the
// hardware measures. Every key that the rules read is always present, so that a missing key is a malformed policy and never a
// permission.
//
// # Patterns and placeholders
//
// A field whose comment says pattern holds a regular expression (RE2) anchored at both ends, "^...$"; [Policy.Validate] refuses
// any other. Every other string is compared as it stands, except for these placeholders, in the fields that name them:
//
//	$(container-id)       id of the container being created
//	$(sandbox-name)       name of the pod, pinned by the first container
//	$(sandbox-namespace)  namespace of the pod, pinned likewise
//	$(sandbox-uid)        uid of the pod, pinned likewise
//	$(root)               mount point: the container's root path
//	$(block)              driver: blk or scsi
//	$(device)             source: a guest device address the host chooses;
//	                      mount point: StorageDir/base64url(source)
package policydata

import (
	"maps"

	"portcullis/engine/fragment"
)

// Version is the version of the shape described here; the rules refuse others.
const Version = 1

// SandboxContainer is the key of the pod's infrastructure ("pause") container
// in Policy.Containers. It cannot be the name of a Kubernetes container.
const SandboxContainer = "$sandbox"

// Order says whether containers must start in the order of the manifest.
type Order string

// Values of Policy.Order.
const (
	OrderFree     Order = "free"     // Container.After is not looked at
	OrderEnforced Order = "enforced" // Container.After must be met
)

// Policy is policy_data.
type Policy struct {
	Version    int                   `json:"version"`    // always Version
	Common     Common                `json:"common"`     // what the containers share
	Containers map[string]*Container `json:"containers"` // by Kubernetes name; SandboxContainer for pause
	// Issuers may update the policy by signed fragments, each within its ceiling. The rules do not read it.
	Issuers  []fragment.Issuer `json:"issuers,omitempty"`
	Order    Order             `json:"order"`
	Requests Requests          `json:"requests"`
	Sandbox  Sandbox           `json:"sandbox"`
	Strict   Strict            `json:"strict"`
}

// Level is how strictly one part of a request is held to the policy.
type Level string

// Values of Level. What Optional and Free mean is said at each field of Strict.
const (
	Required Level = "required"
	Optional Level = "optional"
	Free     Level = "free"
)

// Strict is strictness as data. [StrictDefault] requires everything. Nothing
// here lets a value through that the policy does not name, except where it says so.
type Strict struct {
	Annotations Level `json:"annotations"`  // optional: fixed ones may be missing; free: also any io.kubernetes.cri.* with any value
	ContainerID Level `json:"container_id"` // required: the container id is the id in the root path; free: any
	Env         Level `json:"env"`          // optional: variables may be missing from CreateContainer
	ExecEnv     Level `json:"exec_env"`     // optional: variables may be missing from ExecProcess
	Image       Level `json:"image"`        // optional: pull storage and image-name may be missing, must agree when there; free: not compared
	Instances   Level `json:"instances"`    // required: each container at most once at a time, CreateSandbox once; free: any number
	Lifecycle   Level `json:"lifecycle"`    // required: start, signal, wait, remove, … only for containers that exist; free: any
	Mounts      Level `json:"mounts"`       // optional: mounts may be missing
	Paths       Level `json:"paths"`        // optional: more masked and read-only paths than the policy's are accepted
	Storages    Level `json:"storages"`     // optional: sandbox storages may be missing
	Sysctl      Level `json:"sysctl"`       // optional: sysctls may be missing
}

// StrictDefault requires everything.
func StrictDefault() Strict {
	return Strict{
		Annotations: Required, ContainerID: Required, Env: Required, ExecEnv: Required,
		Image: Required, Instances: Required, Lifecycle: Required, Mounts: Required,
		Paths: Required, Storages: Required, Sysctl: Required,
	}
}

// StrictKata is what upstream's own rules hold a request to.
func StrictKata() Strict {
	return Strict{
		Annotations: Free, ContainerID: Free, Env: Optional, ExecEnv: Optional,
		Image: Free, Instances: Free, Lifecycle: Free, Mounts: Optional,
		Paths: Optional, Storages: Optional, Sysctl: Optional,
	}
}

// Sandbox is the pod itself.
type Sandbox struct {
	// Hostname that CreateSandbox and containers may carry beside "": a pattern, "$(sandbox-name)", or "" for any.
	Hostname  string    `json:"hostname"`
	Name      string    `json:"name"`      // pattern of the pod's name
	Namespace string    `json:"namespace"` // literal, or "" for any (then pinned by the first container)
	PIDNS     bool      `json:"pidns"`     // CreateSandboxRequest.sandbox_pidns
	Storages  []Storage `json:"storages"`  // of CreateSandbox, one to one
}

// PodHostname is the Hostname of a pod whose host name is its name.
const PodHostname = "$(sandbox-name)"

// Common is what the containers of the pod share. Its maps are named sets that
// containers refer to, so that a policy states them once.
type Common struct {
	Annotations    AnnotationPatterns      `json:"annotations"`
	AppArmor       []string                `json:"apparmor"`    // allowed Process.ApparmorProfile values
	BundlePath     string                  `json:"bundle_path"` // of io.katacontainers.pkg.oci.bundle_path, with $(container-id)
	Capabilities   map[string]Capabilities `json:"capabilities"`
	Env            EnvPatterns             `json:"env"`
	Mounts         map[string][]ExactMount `json:"mounts"`       // mounts every container has, compared whole
	OCIVersions    []string                `json:"oci_versions"` // allowed OCI.Version values
	Paths          map[string]Paths        `json:"paths"`
	RootPath       string                  `json:"root_path"`                  // with $(container-id)
	OtherRootPaths []string                `json:"other_root_paths,omitempty"` // of other runtimes, with $(container-id)
	SharedSources  []string                `json:"shared_sources,omitempty"`   // patterns of sources of MountShared, where the host chooses the names
	SharedDirs     []string                `json:"shared_dirs"`                // of shared files, no trailing slash
	StorageDir     string                  `json:"storage_dir"`                // of block storages, no trailing slash
}

// AnnotationPatterns are annotations that any container may carry.
type AnnotationPatterns struct {
	Keys     map[string]string `json:"keys"`     // pattern of the key -> pattern of the value
	Patterns map[string]string `json:"patterns"` // key -> pattern of the value
}

// EnvPatterns are variables that any container may carry and none must.
type EnvPatterns struct {
	Names map[string]string `json:"names"` // name -> pattern of the value
	Whole []string          `json:"whole"` // patterns of "NAME=value", such as service links
}

// Capabilities has the five sets in the request's names, with CAP_, in the order
// in which the runtime writes them; they are compared in any order.
type Capabilities struct {
	Ambient     []string
	Bounding    []string
	Effective   []string
	Inheritable []string
	Permitted   []string
}

// Paths are the masked and read-only paths of a container.
type Paths struct {
	Masked   []string `json:"masked"`   // must be there
	Optional []string `json:"optional"` // patterns of further masked or read-only paths
	Readonly []string `json:"readonly"` // must be there, read-only or masked
}

// ExactMount is a mount as the request must carry it; options in any order.
type ExactMount struct {
	Destination string   `json:"destination"`
	Options     []string `json:"options"`
	Source      string   `json:"source"`
	Type        string   `json:"type_"`
}

// Prune takes away the named sets of Common that no container refers to.
func (p *Policy) Prune() {
	caps, mounts, paths := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range p.Containers {
		caps[c.Capabilities], mounts[c.BaseMounts], paths[c.Paths] = true, true, true
	}
	maps.DeleteFunc(p.Common.Capabilities, func(name string, _ Capabilities) bool { return !caps[name] })
	maps.DeleteFunc(p.Common.Mounts, func(name string, _ []ExactMount) bool { return !mounts[name] })
	maps.DeleteFunc(p.Common.Paths, func(name string, _ Paths) bool { return !paths[name] })
}
