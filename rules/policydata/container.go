// SPDX-License-Identifier: Apache-2.0

package policydata

import (
	"path"
	"slices"
	"strings"
)

// Container is what one container of the pod may be.
type Container struct {
	After        []After          `json:"after"` // read when Policy.Order is enforced
	Annotations  Annotations      `json:"annotations"`
	ArgMatches   map[string]Match `json:"arg_matches"` // index in Args, decimal -> what stands there instead of the literal
	Args         []string         `json:"args"`
	Capabilities string           `json:"capabilities"` // key of Common.Capabilities
	Cwd          string           `json:"cwd"`
	Devices      []string         `json:"devices"` // paths of block devices in the container (volumeDevices)
	Env          Env              `json:"env"`
	Exec         [][]string       `json:"exec"` // argument lists of probes and hooks
	Image        Image            `json:"image"`
	BaseMounts   string           `json:"base_mounts"` // key of Common.Mounts
	Mounts       map[string]Mount `json:"mounts"`      // further mounts, by destination
	Namespaces   []string         `json:"namespaces"`  // types in order, without network and cgroup: "ipc", "uts", "mount"
	NoNewPrivs   bool             `json:"no_new_privileges"`
	OCI          OCI              `json:"OCI"`
	Paths        string           `json:"paths"` // key of Common.Paths
	PIDNS        bool             `json:"pidns"` // sandbox_pidns: shareProcessNamespace
	ReadonlyRoot bool             `json:"readonly_root"`
	Stdin        bool             `json:"stdin"`       // WriteStream and CloseStdin to the container's own process
	StopSignal   uint32           `json:"stop_signal"` // that ends the container, 1 to 64; SIGTERM and SIGKILL are allowed beside it
	Storages     []Storage        `json:"storages"`    // beside the guest pull of the image; one to one
	Sysctl       Sysctl           `json:"sysctl"`
	Terminal     bool             `json:"terminal"`
	Type         ContainerType    `json:"type"`
	OtherUsers   []User           `json:"other_users,omitempty"` // any of which it may run as instead
	VFIO         VFIO             `json:"vfio"`
}

// OCI is what is compared with the request's own fields of these names. It lies where verifier services look for the images and users
// of a policy: they read a policy of the existing tools' shape, which has a whole specification in this place.
type OCI struct {
	Annotations OCIAnnotations
	Process     OCIProcess
}

// OCIAnnotations are those that name the image.
type OCIAnnotations struct {
	ImageName string `json:"io.kubernetes.cri.image-name,omitempty"` // "" where that must be absent
}

// OCIProcess is as whom the process runs.
type OCIProcess struct {
	User User
}

// ContainerType is the value of io.kubernetes.cri.container-type.
type ContainerType string

// Values of ContainerType.
const (
	TypeSandbox   ContainerType = "sandbox"
	TypeContainer ContainerType = "container"
)

// After is one thing that must have happened before this container is created.
type After struct {
	Container string `json:"container"` // key of Policy.Containers
	State     State  `json:"state"`
}

// State is how far another container must have come.
type State string

// Values of State. Succeeded is seen in the answer to WaitProcess, which only
// our gate shows to the rules; with any other agent it is never reached.
const (
	Started   State = "started"
	Succeeded State = "succeeded" // its process ended with exit code 0
)

// Annotations of the container. The rules themselves check sandbox-id, name, namespace and uid, container-name, container-type,
// image-name, bundle path and the two annotations of the sandbox container (log directory, network namespace).
type Annotations struct {
	Fixed    map[string]string `json:"fixed"`    // must be there
	Optional map[string]string `json:"optional"` // may be there, with this value
	Patterns map[string]string `json:"patterns"` // may be there, value matching the pattern
}

// Env is the environment by name: a name occurs in one of these only, once.
type Env struct {
	Fixed []string `json:"fixed"` // "NAME=value", must be there, sorted
	// Hashes bind a value without showing it: name -> SHA-256 of the value in lower-case hex, must be there. kata-agent's own
	// engine cannot compare them, and denies.
	Hashes   map[string]string `json:"hashes,omitempty"`
	Optional map[string]string `json:"optional"` // name -> pattern, may be there
	// Shadowed are the image's "NAME=value" of variables that the pod sets: runtimes may send them too, before the pod's own.
	Shadowed  []string          `json:"shadowed,omitempty"`
	Patterns  map[string]string `json:"patterns"`  // name -> pattern of the value, must be there
	Templates map[string]string `json:"templates"` // name -> value with $(sandbox-name), $(sandbox-namespace), $(sandbox-uid), must be there
}

// Match stands for a value that is known only at run time. Exactly one is set.
type Match struct {
	Pattern  string `json:"pattern,omitzero"`
	Template string `json:"template,omitzero"` // with $(sandbox-name), $(sandbox-namespace), $(sandbox-uid)
}

// ImageFrom is where the root filesystem comes from.
type ImageFrom string

// Values of ImageFrom.
const (
	GuestPull ImageFrom = "guest-pull" // exactly one image_guest_pull storage, on the root path
	Layers    ImageFrom = "layers"     // dm-verity layers, listed in Storages with an overlay on $(root)
	Host      ImageFrom = "host"       // shared by the host; its content is not bound
)

// Image is the image of a container.
type Image struct {
	Also   []string  `json:"also"`   // other spellings of the reference, for OCI.Annotations.ImageName and Source
	Digest string    `json:"digest"` // "sha256:…" when Reference holds it, "" for a tag: content unbound under guest pull
	From   ImageFrom `json:"from"`
	Layers []string  `json:"layers"` // dm-verity root hashes, top layer first; each is in an option of Storages
	Source string    `json:"source"` // source of the pull storage: the reference, or "pause"
}

// ImageBound says whether the policy fixes what the container's image holds. It does not for a tag, which can come to mean
// another image, nor for an image that the host shares. What is called "pause" is the guest's own for the sandbox alone.
func (c *Container) ImageBound() bool {
	switch i := c.Image; i.From {
	case Layers:
		return c.layered()
	case GuestPull:
		return i.Digest != "" && i.digestHolds() || i.Source == "pause" && c.Type == TypeSandbox
	}
	return false
}

// layered says whether the root is made of the image's layers alone, each by its root hash.
func (c *Container) layered() bool {
	layers, lower := map[string]bool{}, 0
	for _, s := range c.Storages {
		for _, option := range s.Options {
			if hash, ok := strings.CutPrefix(option, "io.katacontainers.fs-opt.root-hash="); ok && slices.Contains(c.Image.Layers, hash) {
				layers[path.Base(s.MountPoint)] = true
			}
		}
	}
	for _, s := range c.Storages {
		for _, option := range s.Options {
			if names, ok := strings.CutPrefix(option, "lowerdir="); ok && s.MountPoint == "$(root)" {
				lower++
				if slices.ContainsFunc(strings.Split(names, ":"), func(name string) bool { return !layers[name] }) {
					return false
				}
			}
		}
	}
	return lower > 0
}

// digestHolds says whether the digest is in every name by which the image may be pulled.
func (i Image) digestHolds() bool {
	names := append([]string{i.Source}, i.Also...)
	return !slices.ContainsFunc(names, func(name string) bool { return !strings.HasSuffix(name, "@"+i.Digest) })
}

// MountFrom says how Mount.Source is read.
type MountFrom string

// Values of MountFrom.
const (
	MountExact   MountFrom = "exact"   // Source is the source
	MountShared  MountFrom = "shared"  // SharedDir/<container id>-<16 of a-z0-9>-Source
	MountStorage MountFrom = "storage" // mount point of a block storage of this request; Source is the volume's name
	MountLocal   MountFrom = "local"   // directory of the guest: SharedDir[/passthrough]/<sandbox id>/rootfs/local/Source
)

// Mount is one mount, keyed by its destination.
type Mount struct {
	ExtraOptions []string  `json:"extra_options,omitempty"` // options that may be there too (cgroup)
	From         MountFrom `json:"from"`
	MayBeMissing bool      `json:"optional,omitzero"`
	Options      []string  `json:"options"` // in any order
	Source       string    `json:"source"`
	Type         string    `json:"type_"`
	// Contents are what the host may copy below a MountShared; nil means whatever it chooses.
	Contents *Contents `json:"contents,omitempty"`
	// Copied matches what may be there in place of a MountLocal: a directory that the agent makes for a copy of an empty one.
	// ContainerID stands for the container's. Only where [Policy.SharesNothing].
	Copied string `json:"copied,omitempty"`
}

// ContainerID stands for the id of the container in [Mount.Copied].
const ContainerID = "$(container-id)"

// Contents are the files of one mount. Without files and not Open it is a directory that stays empty.
type Contents struct {
	Files map[string]File `json:"files"`          // by path below the mount; "" where the mount is a file itself
	Open  bool            `json:"open,omitempty"` // others may be there too
}

// Unknown lists the files that may be there and whose content the policy does not know, sorted.
func (c *Contents) Unknown() []string {
	var out []string
	for key, f := range c.Files {
		if f.SHA256 == "" {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// Bound reports whether the policy knows every file, and what it holds; it knows nothing of nil.
func (c *Contents) Bound() bool { return c != nil && !c.Open && len(c.Unknown()) == 0 }

// File is one file of a mount.
type File struct {
	Mode     uint32 `json:"mode"`               // permission bits; 0 beside an empty SHA256: any
	Optional bool   `json:"optional,omitempty"` // need not be there
	SHA256   string `json:"sha256"`             // lower-case hex; "" where only the cluster knows what it holds
	Size     int64  `json:"size"`               // bytes; 0 beside an empty SHA256
}

// Storage is a storage as the request must carry it, options in any order, with the placeholders $(block), $(device), $(root).
type Storage struct {
	Driver        string   `json:"driver"`
	DriverOptions []string `json:"driver_options"`
	FSGroup       *FSGroup `json:"fs_group"`
	FSType        string   `json:"fstype"`
	MountPoint    string   `json:"mount_point"`
	Options       []string `json:"options"`
	Shared        bool     `json:"shared"`
	Source        string   `json:"source"`
}

// FSGroup is the group that owns a volume's files. Policy 0: always, 1: on root mismatch.
type FSGroup struct {
	Policy uint32 `json:"group_change_policy"`
	GID    uint32 `json:"group_id"`
}

// Sysctl of the container.
type Sysctl struct {
	Fixed    map[string]string `json:"fixed"`    // must be there
	Optional map[string]string `json:"optional"` // may be there, with this value
}

// User of the process, in the request's names. AdditionalGids is sorted.
type User struct {
	AdditionalGids []uint32
	GID            uint32
	UID            uint32
	Username       string // always ""
}

// VFIO describes passed-through devices, such as GPUs. Count 0: none.
type VFIO struct {
	Annotation string `json:"annotation"` // pattern of the value of each cdi.k8s.io/vfioN annotation
	Count      int    `json:"count"`
	Path       string `json:"path"` // container_path without its number
	Type       string `json:"type"` // type_
}
