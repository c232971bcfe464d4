// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"portcullis/agentproto/agentpb"
)

func (c *inspection) container(r *agentpb.CreateContainerRequest) error {
	if err := c.storages(r.GetStorages()); err != nil {
		return err
	}
	if err := c.agentDevices(r.GetDevices()); err != nil {
		return err
	}
	for i, m := range r.GetSharedMounts() {
		if err := c.path(fmt.Sprintf("shared_mounts[%d].src_path", i), m.GetSrcPath()); err != nil {
			return err
		}
	}
	spec := r.GetOCI()
	if err := c.mounts(spec.GetMounts()); err != nil {
		return err
	}
	if root := spec.GetRoot(); root != nil {
		if err := c.required("OCI.Root.Path", root.GetPath()); err != nil {
			return err
		}
	}
	if err := c.hooks(spec.GetHooks()); err != nil {
		return err
	}
	if err := c.cwd("OCI.Process.Cwd", spec.GetProcess().GetCwd()); err != nil {
		return err
	}
	return c.linux(spec.GetLinux(), r.GetDevices())
}

func (c *inspection) hooks(h *agentpb.Hooks) error {
	for _, list := range [][]*agentpb.Hook{h.GetPrestart(), h.GetPoststart(), h.GetPoststop(), h.GetCreateRuntime(), h.GetCreateContainer(), h.GetStartContainer()} {
		if len(list) > 0 {
			return c.refusal("OCI.Hooks", AllowHooks, "runs programs beside the policy gate")
		}
	}
	return nil
}

// cwd refuses working directories in /proc: file descriptors that a runtime left open lead out of the container there.
func (c *inspection) cwd(field, dir string) error {
	if strings.Contains(dir, "\x00") {
		return c.refusal(field, "", "has a zero byte")
	}
	if clean := path.Clean("/" + dir); holds("/proc", clean) {
		return c.refusal(field, clean, "leads out of the container by /proc")
	}
	return nil
}

func (c *inspection) linux(l *agentpb.Linux, devices []*agentpb.Device) error {
	if l == nil {
		return nil
	}
	if err := c.cgroup(l.GetCgroupsPath()); err != nil {
		return err
	}
	if err := c.sysctls(l.GetSysctl()); err != nil {
		return err
	}
	if err := c.deviceNodes(l.GetDevices(), devices); err != nil {
		return err
	}
	if err := c.deviceRules("OCI.Linux.Resources.Devices", l.GetResources(), l.GetDevices()); err != nil {
		return err
	}
	return c.namespaces(l.GetNamespaces())
}

// podNamespace is the network namespace that peer pods share; agent-protocol-forwarder names it.
const podNamespace = "/run/netns/podns"

// namespaces wants new ones, a mount namespace among them. Only peer pods join one that is there.
func (c *inspection) namespaces(list []*agentpb.LinuxNamespace) error {
	hasMount := false
	for i, n := range list {
		hasMount = hasMount || n.GetType() == "mount" || n.GetType() == "mnt"
		if n.GetPath() == "" || n.GetType() == "network" && n.GetPath() == podNamespace {
			continue
		}
		if err := c.refusal(fmt.Sprintf("OCI.Linux.Namespaces[%d]", i), path.Clean(n.GetPath()), "joins a namespace of the guest"); err != nil {
			return err
		}
	}
	if !hasMount {
		return c.refusal("OCI.Linux.Namespaces", "", "has no mount namespace: the container would be in that of the policy gate")
	}
	return nil
}

// serviceCgroup matches a part of a cgroup's path that systemd keeps for the guest's own services.
var serviceCgroup = regexp.MustCompile(`\.(service|socket|mount|swap|scope)$|^(system|user|init|machine)(\.slice|\.scope|-.*\.slice)?$|^-\.slice$`)

// cgroup refuses a container's place among the guest's services, which are known by their cgroup.
func (c *inspection) cgroup(name string) error {
	const field = "OCI.Linux.CgroupsPath"
	if name == "" {
		return nil
	}
	parts := strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == ':' })
	for _, part := range parts {
		if part == "." || part == ".." || serviceCgroup.MatchString(part) || strings.ContainsAny(part, "\x00\n") {
			return c.refusal(field, "", "is not a container's place")
		}
	}
	if len(parts) == 0 || strings.Contains(parts[0], "system.slice") {
		return c.refusal(field, "", "is not a container's place")
	}
	return nil
}

// namespaced are the kernel parameters that a container has for itself, or that name no program; a trailing . or * stands for
// any rest. Others rule the guest: kernel.core_pattern and kernel.modprobe name programs that the kernel runs outside.
var namespaced = regexp.MustCompile(`^(net\..*|fs\.mqueue\..*|vm\..*|user\.max_.*|kernel\.(shm[a-z_]*|msg[a-z_]*|sem|sem_next_id|hostname|domainname|ngroups_max|cap_last_cap|pid_max|threads-max|keys\..*))$`)

func (c *inspection) sysctls(list map[string]string) error {
	names := make([]string, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(strings.FieldsFunc(name, func(r rune) bool { return r == '/' }), "..") {
			return c.refusal("OCI.Linux.Sysctl", "", "climbs out of its directory")
		}
		if !namespaced.MatchString(strings.ReplaceAll(name, "/", ".")) {
			return c.refusal("OCI.Linux.Sysctl", AllowSysctls, "sets %s, which is the whole guest's", printable(name))
		}
	}
	return nil
}
