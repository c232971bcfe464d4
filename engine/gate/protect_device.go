// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"slices"
	"strings"

	"portcullis/agentproto/agentpb"
)

// agentDevices checks the devices that the agent is to find for the container: where they are in the guest is an address on a
// bus, or a path.
func (c *inspection) agentDevices(list []*agentpb.Device) error {
	for i, d := range list {
		field := fmt.Sprintf("devices[%d]", i)
		if err := c.source(field+".vm_path", d.GetVmPath()); err != nil {
			return err
		}
		if guarded := c.below(d.GetContainerPath()); guarded != "" {
			return c.refusal(field+".container_path", "", "names %s, which belongs to the policy gate", guarded)
		}
		if err := c.options(field+".options", d.GetOptions()); err != nil {
			return err
		}
	}
	return nil
}

// ordinary are the character devices, as major and minor, that give a container nothing of the guest: the memory devices that
// every container has, terminals, tun, fuse, vfio's container, NVIDIA's. A minor of -1 stands for all.
var ordinary = [][2]int64{
	{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {10, 196}, {10, 200}, {10, 229}, {136, -1}, {195, -1},
}

func isOrdinary(major, minor int64) bool {
	return slices.ContainsFunc(ordinary, func(d [2]int64) bool { return d[0] == major && (d[1] == minor || d[1] == -1) && minor >= 0 })
}

// deviceNodes checks the nodes that a container gets. A number means whatever device the guest's kernel gave it to, so only ordinary
// ones pass, and those whose numbers the agent itself puts in, because the same path is among the devices that it looks for.
func (c *inspection) deviceNodes(nodes []*agentpb.LinuxDevice, found []*agentpb.Device) error {
	for i, n := range nodes {
		field := fmt.Sprintf("OCI.Linux.Devices[%d]", i)
		if slices.Contains(strings.Split(n.GetPath(), "/"), "..") {
			return c.refusal(field+".Path", "", "climbs out of the container")
		}
		if guarded := c.below(n.GetPath()); guarded != "" {
			return c.refusal(field+".Path", "", "names %s, which belongs to the policy gate", guarded)
		}
		if isFound(n, nodes, found) || n.GetType() == "p" || isCharacter(n.GetType()) && isOrdinary(n.GetMajor(), n.GetMinor()) {
			continue
		}
		if err := c.refusal(field, AllowDevices, "is a device by its number, %s %d:%d", printable(n.GetType()), n.GetMajor(), n.GetMinor()); err != nil {
			return err
		}
	}
	return nil
}

func isCharacter(kind string) bool { return kind == "c" || kind == "u" }

// isFound reports whether the agent replaces n's numbers by those of a device that it found: the only node of that path, once
// among the devices, disks as block devices and others as character ones.
func isFound(n *agentpb.LinuxDevice, nodes []*agentpb.LinuxDevice, found []*agentpb.Device) bool {
	same, kinds := 0, []string(nil)
	for _, other := range nodes {
		if other.GetPath() == n.GetPath() {
			same++
		}
	}
	for _, d := range found {
		if d.GetContainerPath() == n.GetPath() {
			kinds = append(kinds, d.GetType())
		}
	}
	if same != 1 || len(kinds) != 1 {
		return false
	}
	if strings.HasPrefix(kinds[0], "vfio") {
		return kinds[0] != guestKernelDevice && isCharacter(n.GetType())
	}
	return n.GetType() == "b"
}

// guestKernelDevice is the type of devices that a driver of the guest's kernel takes: the agent finds no node for them.
const guestKernelDevice = "vfio-pci-gk"

// deviceRules checks the device cgroup's rules: one that allows must be for a device that the container may have.
func (c *inspection) deviceRules(field string, r *agentpb.LinuxResources, nodes []*agentpb.LinuxDevice) error {
	for i, rule := range r.GetDevices() {
		known := isCharacter(rule.GetType()) && isOrdinary(rule.GetMajor(), rule.GetMinor()) ||
			slices.ContainsFunc(nodes, func(n *agentpb.LinuxDevice) bool {
				return n.GetType() == rule.GetType() && n.GetMajor() == rule.GetMajor() && n.GetMinor() == rule.GetMinor()
			})
		if !rule.GetAllow() || rule.GetAccess() == "m" || known {
			continue
		}
		if err := c.refusal(fmt.Sprintf("%s[%d]", field, i), AllowDevices, "allows devices by their numbers"); err != nil {
			return err
		}
	}
	return nil
}
