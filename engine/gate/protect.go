// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

// Protected are the paths of the guest that no request may name, whatever the policy says: what policyd is made of, what it
// is configured by, and the devices that bind it to the hardware. A trailing * stands for any rest of a name.
var Protected = []string{
	"/run/portcullis",
	"/etc/portcullis",
	"/etc/kata-opa",
	"/dev/tpm*",
	"/dev/sev-guest",
	"/dev/tdx_guest",
	"/sys/kernel/config/tsm",
}

// Words of the configuration's gate.allow, beside paths and "mount:TYPE". Each lets policies decide what is refused otherwise.
const (
	AllowHooks         = "hooks"          // OCI.Hooks
	AllowGuestHooks    = "guest-hooks"    // guest_hook_path of CreateSandbox
	AllowKernelModules = "kernel-modules" // kernel_modules of CreateSandbox
	AllowDevices       = "devices"        // devices by number, and device cgroup rules
	AllowSysctls       = "sysctls"        // kernel parameters that no namespace has
	AllowUpwardLinks   = "upward-links"   // symbolic links in volumes with ".." in their target
)

// allowMount begins a word of gate.allow that names a type of mount.
const allowMount = "mount:"

// CheckAllow reports what of gate.allow is neither a clean absolute path nor a word. A protected path cannot be allowed.
func CheckAllow(words []string) error {
	known := []string{AllowHooks, AllowGuestHooks, AllowKernelModules, AllowDevices, AllowSysctls, AllowUpwardLinks}
	for _, w := range words {
		switch {
		case slices.Contains(known, w) || strings.HasPrefix(w, allowMount) && len(w) > len(allowMount):
		case !path.IsAbs(w) || path.Clean(w) != w:
			return fmt.Errorf("%q: want a clean absolute path, %s, or mount:TYPE", w, strings.Join(known, ", "))
		case newProtected(nil, nil).below(w) != "":
			return fmt.Errorf("%q: what belongs to the policy gate cannot be allowed", w)
		}
	}
	return nil
}

// protected checks requests for what no policy may allow.
type protected struct {
	paths []string // clean; a trailing * stands for any rest of a name
	allow []string // gate.allow of the configuration
	links linkFinder
}

// newProtected adds paths, such as the daemon's binary and logs, to those that are always protected.
func newProtected(more, allow []string) *protected {
	p := &protected{allow: allow, links: newLinkFinder()}
	for _, name := range append(slices.Clone(Protected), more...) {
		if name != "" {
			p.paths = append(p.paths, path.Clean(name))
		}
	}
	return p
}

// ErrProtected is wrapped by every [ProtectedError].
var ErrProtected = errors.New("not for any policy to allow")

// ProtectedError says which field of a request names something that no policy may allow.
type ProtectedError struct {
	Field string
	What  string // the rest of the sentence, such as `names /run/portcullis, which belongs to the policy gate`
	Allow string // the word of gate.allow that leaves it to the policy; empty for none
}

func (e *ProtectedError) Error() string {
	text := e.Field + " " + e.What
	if e.Allow != "" {
		text += fmt.Sprintf("; to leave it to the policy, the image's config.toml says [gate] allow = [%q]", e.Allow)
	}
	return text
}

// Unwrap returns ErrProtected.
func (e *ProtectedError) Unwrap() error { return ErrProtected }

// refusal makes the error for a field, unless the configuration allows it by the word.
func (p *protected) refusal(field, word, format string, args ...any) error {
	if word != "" && slices.Contains(p.allow, word) {
		return nil
	}
	return &ProtectedError{Field: field, What: fmt.Sprintf(format, args...), Allow: word}
}

// check refuses a request that names, by whatever spelling, number or way around, what the gate consists of or depends on.
// Paths inside a container are not concerned.
func (p *protected) check(request proto.Message) error {
	c := &inspection{protected: p}
	if err := c.ids(request); err != nil {
		return err
	}
	if err := c.request(request); err != nil {
		return err
	}
	return c.followed()
}

// inspection is one request's check.
type inspection struct {
	*protected
	walk []namedPath // paths that must not lead through a link of the image
}

func (c *inspection) request(request proto.Message) error {
	switch r := request.(type) {
	case *agentpb.CreateSandboxRequest:
		return c.sandbox(r)
	case *agentpb.CreateContainerRequest:
		return c.container(r)
	case *agentpb.UpdateContainerRequest:
		return c.deviceRules("resources.Devices", r.GetResources(), nil)
	case *agentpb.ExecProcessRequest:
		return c.cwd("process.Cwd", r.GetProcess().GetCwd())
	case *agentpb.UpdateEphemeralMountsRequest:
		return c.storages(r.GetStorages())
	case *agentpb.CopyFileRequest:
		return c.file(r)
	case *agentpb.AddSwapPathRequest:
		return c.path("path", r.GetPath())
	case *agentpb.VolumeStatsRequest:
		return c.path("volume_guest_path", r.GetVolumeGuestPath())
	case *agentpb.ResizeVolumeRequest:
		return c.path("volume_guest_path", r.GetVolumeGuestPath())
	}
	return nil
}

// ids refuses names of containers, processes and sandboxes that are more than one: the agent makes paths of them.
func (c *inspection) ids(request proto.Message) error {
	m := request.ProtoReflect()
	for _, name := range agentproto.IDFields(m.Descriptor()) {
		id := m.Get(m.Descriptor().Fields().ByName(name)).String()
		if strings.ContainsAny(id, "/\x00") || id == "." || id == ".." {
			return c.refusal(string(name), "", "is no name")
		}
	}
	return nil
}

func (c *inspection) sandbox(r *agentpb.CreateSandboxRequest) error {
	if r.GetGuestHookPath() != "" {
		if err := c.refusal("guest_hook_path", AllowGuestHooks, "runs programs beside the policy gate"); err != nil {
			return err
		}
		if err := c.path("guest_hook_path", r.GetGuestHookPath()); err != nil {
			return err
		}
	}
	if len(r.GetKernelModules()) > 0 {
		if err := c.refusal("kernel_modules", AllowKernelModules, "loads modules into the kernel under the policy gate"); err != nil {
			return err
		}
	}
	return c.storages(r.GetStorages())
}

// fileTypeMask and symlink are S_IFMT and S_IFLNK of stat(2).
const (
	fileTypeMask = 0o170000
	symlink      = 0o120000
)

// sharedDir is where the agent takes files.
const sharedDir = "/run/kata-containers/shared/containers"

func (c *inspection) file(r *agentpb.CopyFileRequest) error {
	if err := agentproto.CheckFileMode(r.GetFileMode()); err != nil {
		return err
	}
	if clean := path.Clean(r.GetPath()); holds(sharedDir, r.GetPath()) && !holds(sharedDir, clean) {
		if err := c.place("path", clean); err != nil {
			return err
		}
		return c.refusal("path", "", "leaves the shared directory")
	}
	if err := c.path("path", r.GetPath()); err != nil {
		return err
	}
	if r.GetFileMode()&fileTypeMask != symlink {
		return nil
	}
	return c.linkTarget(path.Dir(r.GetPath()), string(r.GetData()))
}

// linkTarget checks where a link in dir leads. One that climbs leads elsewhere once a directory above it is a link.
func (c *inspection) linkTarget(dir, target string) error {
	const field = "symlink target"
	if path.IsAbs(target) {
		return c.path(field, target)
	}
	if err := c.path(field, path.Join(dir, target)); err != nil {
		return err
	}
	if strings.Contains(target, "\x00") {
		return c.refusal(field, "", "has a zero byte")
	}
	if slices.Contains(strings.Split(target, "/"), "..") {
		return c.refusal(field, AllowUpwardLinks, "climbs out of its directory")
	}
	return nil
}
