// SPDX-License-Identifier: Apache-2.0

// Package cri holds what a kubelet asks of a container runtime, as far as it reaches the virtual machine of a pod: the
// configurations of the Container Runtime Interface, with only the fields that do.
package cri

// Sandbox is the configuration of RunPodSandbox.
type Sandbox struct {
	Name, Namespace, UID string
	Hostname             string // "" in the node's network
	LogDirectory         string
	DNS                  DNS
	Annotations          map[string]string // of the pod
	CgroupParent         string
	Sysctls              map[string]string
	RunAsUser            *int64
	RunAsGroup           *int64
	Privileged           bool // one of the containers is
	HostNetwork          bool
	HostPID, HostIPC     bool
	SharePIDs            bool
	Resources            Resources // the sum over the containers
}

// DNS becomes the lines of resolv.conf.
type DNS struct{ Servers, Searches, Options []string }

// Resources are the limits of a container. Zero means unset.
type Resources struct {
	Shares uint64
	Quota  int64
	Period uint64
	Memory int64 // bytes
	Swap   int64 // bytes, memory included
	Huge   []HugePages
}

// HugePages limits the huge pages of one size.
type HugePages struct {
	Size  string // as Linux names it: 64KB, 2MB, 1GB
	Limit uint64 // bytes
}

// Container is the configuration of CreateContainer.
type Container struct {
	Name, Image   string // image as the manifest names it
	Command, Args []string
	WorkingDir    string
	Env           []EnvVar
	Mounts        []Mount
	Devices       []Device
	VFIO          int // devices that are passed through
	Stdin, TTY    bool
	Resources     Resources
	OOMScoreAdj   int64
	Security      Security
	ReadonlyRoot  bool
}

// EnvVar is one variable of a process.
type EnvVar struct{ Name, Value string }

// Propagation is the mount propagation of a volume.
type Propagation string

// Values of Propagation.
const (
	Private         Propagation = "rprivate"
	HostToContainer Propagation = "rslave"
	Bidirectional   Propagation = "rshared"
)

// Mount is one volume of a container.
type Mount struct {
	ContainerPath, HostPath string
	Readonly                bool
	Propagation             Propagation
	Image                   string // an image volume: the image, HostPath is where the runtime mounts it
}

// Device is a device of the node that the container gets.
type Device struct {
	ContainerPath, HostPath string
	Permissions             string
}

// Security is the security context of a container. RunAsUser and RunAsUserName exclude each other.
type Security struct {
	Privileged         bool
	AddCapabilities    []string // without CAP_
	DropCapabilities   []string
	RunAsUser          *int64
	RunAsUserName      string
	RunAsGroup         *int64
	SupplementalGroups []int64
	StrictGroups       bool // supplementalGroupsPolicy: Strict
	NoNewPrivs         bool
	MaskedPaths        []string
	ReadonlyPaths      []string
}
