// SPDX-License-Identifier: Apache-2.0

package kata

import "portcullis/rules/policydata"

// The types of this file are upstream's policy_data, key by key.

type document struct {
	Containers []container `json:"containers"`
	Common     common      `json:"common"`
	Sandbox    sandbox     `json:"sandbox"`
	Requests   requests    `json:"request_defaults"`
	Devices    devices     `json:"devices"`
	Cluster    cluster     `json:"cluster_config"`
}

type container struct {
	OCI                oci               `json:"OCI"`
	Storages           []storage         `json:"storages"`
	Devices            []device          `json:"devices"`
	PIDNS              bool              `json:"sandbox_pidns"`
	Exec               [][]string        `json:"exec_commands"`
	AnnotationPatterns map[string]string `json:"runtime_anno_patterns"`
}

type oci struct {
	Version     string
	Process     process
	Root        root
	Mounts      []mount
	Annotations map[string]string
	Linux       linux
}

type process struct {
	Terminal        bool
	User            policydata.User
	Args            []string `json:",omitempty"`
	Env             []string `json:",omitempty"`
	Cwd             string
	Capabilities    policydata.Capabilities
	NoNewPrivileges bool
}

type root struct {
	Path     string
	Readonly bool
}

type mount struct {
	Destination string   `json:"destination"`
	Source      string   `json:"source"`
	Type        string   `json:"type_"`
	Options     []string `json:"options"`
}

type linux struct {
	Namespaces    []namespace
	MaskedPaths   []string
	ReadonlyPaths []string
	Devices       []linuxDevice
	Sysctl        map[string]string `json:",omitempty"`
}

type namespace struct{ Type, Path string }

type linuxDevice struct{ Type, Path string }

type storage struct {
	Driver        string              `json:"driver"`
	DriverOptions []string            `json:"driver_options"`
	Source        string              `json:"source"`
	FSType        string              `json:"fstype"`
	Options       []string            `json:"options"`
	MountPoint    string              `json:"mount_point"`
	FSGroup       *policydata.FSGroup `json:"fs_group"`
	Shared        bool                `json:"shared"`
}

type device struct {
	ID            string   `json:"id"`
	Type          string   `json:"type_"`
	VMPath        string   `json:"vm_path"`
	ContainerPath string   `json:"container_path"`
	Options       []string `json:"options"`
}

type common struct {
	CPath      string   `json:"cpath"`
	RootPath   string   `json:"root_path"`
	SFPrefix   string   `json:"sfprefix"`
	SPath      string   `json:"spath"`
	IPv4       string   `json:"ipv4_a"`
	Port       string   `json:"ip_p"`
	Service    string   `json:"svc_name_downward_env"`
	DNSLabel   string   `json:"dns_label"`
	Default    []string `json:"default_caps"`
	Privileged []string `json:"privileged_caps"`
}

type sandbox struct {
	Storages []storage `json:"storages"`
}

type devices struct {
	VFIO vfio `json:"vfio"`
}

type vfio struct {
	DevicePath string   `json:"device_path"`
	NVIDIA     struct{} `json:"nvidia"`
}

type cluster struct {
	PauseImage   string   `json:"pause_container_image"`
	GuestPull    bool     `json:"guest_pull"`
	EmptyDir     string   `json:"emptydir_type"`
	CgroupExtras []string `json:"cgroup_mount_extras_allowed"`
}

type requests struct {
	CreateContainer struct {
		AllowEnv []string `json:"allow_env_regex"`
	} `json:"CreateContainerRequest"`
	CopyFile    []string `json:"CopyFileRequest"`
	ExecProcess struct {
		Allowed [][]string `json:"allowed_commands"`
		Regex   []string   `json:"regex"`
	} `json:"ExecProcessRequest"`
	UpdateRoutes struct {
		Devices []string `json:"forbidden_device_names"`
		Sources []string `json:"forbidden_source_regex"`
	} `json:"UpdateRoutesRequest"`
	UpdateInterface struct {
		RawFlags uint32   `json:"allow_raw_flags"`
		Names    []string `json:"forbidden_names"`
		HWAddrs  []string `json:"forbidden_hw_addrs"`
	} `json:"UpdateInterfaceRequest"`
	ARP struct {
		Devices   []string `json:"forbidden_device_names"`
		Addresses []string `json:"forbidden_cidrs_regex"`
		States    []uint32 `json:"allowed_states"`
	} `json:"AddARPNeighborsRequest"`
	CloseStdin            bool `json:"CloseStdinRequest"`
	ReadStream            bool `json:"ReadStreamRequest"`
	UpdateEphemeralMounts bool `json:"UpdateEphemeralMountsRequest"`
	WriteStream           bool `json:"WriteStreamRequest"`
	GetDiagnosticData     bool `json:"GetDiagnosticDataRequest"`
}
