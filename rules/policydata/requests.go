// SPDX-License-Identifier: Apache-2.0

package policydata

// Requests are the defaults of the other request families.
type Requests struct {
	AddARPNeighbors ARP `json:"arp"`
	// Allow lists entry points that the rules deny without looking at their
	// fields, and that this pod allows in the same way, such as "GetMetricsRequest".
	Allow                 []string  `json:"allow"`
	CloseStdin            bool      `json:"close_stdin"` // for every container
	CopyFile              []string  `json:"copy_file"`   // patterns of the path
	Exec                  Exec      `json:"exec"`
	GetDiagnosticData     bool      `json:"get_diagnostic_data"`
	Interface             Interface `json:"interface"`
	ReadStream            bool      `json:"read_stream"` // container output may reach the host
	Routes                Routes    `json:"routes"`
	UpdateEphemeralMounts bool      `json:"update_ephemeral_mounts"`
	WriteStream           bool      `json:"write_stream"` // stdin of every process
}

// ARP bounds AddARPNeighbors.
type ARP struct {
	Flags              uint32   `json:"flags"`               // allowed bits
	ForbiddenAddresses []string `json:"forbidden_addresses"` // patterns
	ForbiddenDevices   []string `json:"forbidden_devices"`
	States             []uint32 `json:"states"`
}

// Exec bounds ExecProcess beyond Container.Exec.
type Exec struct {
	Commands [][]string `json:"commands"` // argument lists, in any container
	Joined   []string   `json:"joined"`   // patterns of the arguments joined by one space, in any container
	Stdin    bool       `json:"stdin"`    // stdin of such processes
	Terminal bool       `json:"terminal"` // Commands and Joined may have a terminal
}

// Interface bounds UpdateInterface.
type Interface struct {
	ForbiddenHWAddrs []string `json:"forbidden_hw_addrs"`
	ForbiddenNames   []string `json:"forbidden_names"`
	RawFlags         uint32   `json:"raw_flags"` // allowed bits
}

// Routes bounds UpdateRoutes.
type Routes struct {
	ForbiddenDevices []string `json:"forbidden_devices"`
	ForbiddenSources []string `json:"forbidden_sources"` // patterns, for source and destination
}
