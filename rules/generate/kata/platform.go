// SPDX-License-Identifier: Apache-2.0

package kata

import (
	"regexp"
	"slices"
	"strings"
)

// common has what all containers share. The four patterns for variables stay for
// rules that look for them; allow_env_regex does not refer to them.
func (c *converter) common() common {
	from := c.policy.Common
	dirs := make([]string, len(from.SharedDirs))
	for i, dir := range from.SharedDirs {
		dirs[i] = regexp.QuoteMeta(dir)
	}
	path := strings.Join(dirs, "|")
	if len(dirs) > 1 {
		path = "(?:" + path + ")"
	}
	return common{
		CPath:    path,
		RootPath: strings.ReplaceAll(from.RootPath, "$(container-id)", "$(bundle-id)"),
		SFPrefix: "^$(cpath)/$(bundle-id)-[a-z0-9]{16}-",
		SPath:    from.StorageDir,
		IPv4:     `(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`,
		Port:     `[0-9]{1,5}`,
		Service:  `[A-Z](?:[A-Z0-9_]{0,61}[A-Z0-9])?`,
		DNSLabel: `[a-zA-Z0-9_\.\-]+`,
		Default:  c.settings.Common.Capabilities["default"].Bounding, Privileged: c.settings.Generate.PrivilegedCapabilities.Names,
	}
}

// emptyDir returns upstream's name for how an emptyDir arrives.
func (c *converter) emptyDir() string {
	if c.settings.Generate.EmptyDir == "shared" || c.settings.Generate.EmptyDir == "local" {
		return "shared-fs"
	}
	return c.settings.Generate.EmptyDir
}

// cgroupExtras are options that the cgroup mount of some container may have.
func (c *converter) cgroupExtras() []string {
	out := []string{}
	for _, from := range c.policy.Containers {
		for _, m := range from.Mounts {
			if m.Type == "cgroup" {
				out = append(out, m.ExtraOptions...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *converter) requests() requests {
	from := c.policy.Requests
	var out requests
	out.CreateContainer.AllowEnv = append([]string{}, c.policy.Common.Env.Whole...)
	for name, pattern := range c.policy.Common.Env.Names {
		out.CreateContainer.AllowEnv = append(out.CreateContainer.AllowEnv, "^"+regexp.QuoteMeta(name)+"="+strings.TrimPrefix(pattern, "^"))
	}
	slices.Sort(out.CreateContainer.AllowEnv)
	out.CopyFile = []string{}
	if len(from.CopyFile) > 0 {
		out.CopyFile = []string{"$(sfprefix)"}
	}
	out.ExecProcess.Allowed = append([][]string{}, from.Exec.Commands...)
	out.ExecProcess.Regex = list(from.Exec.Joined)
	out.UpdateRoutes.Devices, out.UpdateRoutes.Sources = list(from.Routes.ForbiddenDevices), list(from.Routes.ForbiddenSources)
	out.UpdateInterface.RawFlags = from.Interface.RawFlags
	out.UpdateInterface.Names, out.UpdateInterface.HWAddrs = list(from.Interface.ForbiddenNames), list(from.Interface.ForbiddenHWAddrs)
	out.ARP.Devices, out.ARP.Addresses = list(from.AddARPNeighbors.ForbiddenDevices), list(from.AddARPNeighbors.ForbiddenAddresses)
	out.ARP.States = append([]uint32{}, from.AddARPNeighbors.States...)
	out.CloseStdin, out.ReadStream, out.WriteStream = from.CloseStdin, from.ReadStream, from.WriteStream
	out.UpdateEphemeralMounts, out.GetDiagnosticData = from.UpdateEphemeralMounts, from.GetDiagnosticData
	return out
}

func list(s []string) []string { return append([]string{}, s...) }
