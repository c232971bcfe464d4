// SPDX-License-Identifier: Apache-2.0

// Package kata writes a policy in the shape of policy_data that upstream's rules read, for users who bring their own rules. That
// shape says less: what it has no word for is an error here, never left out, unless upstream's rules would not have looked at it.
package kata

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

// ErrNotExpressible is wrapped by errors about what upstream's shape cannot say.
var ErrNotExpressible = errors.New("cannot be expressed in upstream's policy_data")

// Data returns policy_data of a pod in upstream's shape, as JSON with two spaces of indentation and no newline at the end.
func Data(p *policydata.Policy, s *settings.Settings) ([]byte, error) {
	c := converter{policy: p, settings: s}
	out := document{
		Common:   c.common(),
		Sandbox:  sandbox{Storages: []storage{}},
		Requests: c.requests(),
		Devices:  devices{VFIO: vfio{DevicePath: s.Generate.VFIO.Path, NVIDIA: struct{}{}}},
		Cluster: cluster{
			PauseImage: s.Generate.PauseImage, GuestPull: s.Generate.ImageFrom == policydata.GuestPull,
			EmptyDir: c.emptyDir(), CgroupExtras: c.cgroupExtras(),
		},
	}
	for _, st := range p.Sandbox.Storages {
		out.Sandbox.Storages = append(out.Sandbox.Storages, c.storage(st, false))
	}
	for _, name := range c.order() {
		made, err := c.container(name)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", name, err)
		}
		out.Containers = append(out.Containers, made)
	}
	return json.MarshalIndent(out, "", "  ")
}

// Text returns rules and policy_data as one policy.
func Text(rules string, p *policydata.Policy, s *settings.Settings) ([]byte, error) {
	data, err := Data(p, s)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n\npolicy_data := %s\n", strings.TrimRight(rules, "\n"), data), nil
}

type converter struct {
	policy   *policydata.Policy
	settings *settings.Settings
}

// order puts the sandbox container first, where upstream's rules look for it.
func (c *converter) order() []string {
	names := slices.Sorted(maps.Keys(c.policy.Containers))
	rest := slices.DeleteFunc(names, func(name string) bool { return name == policydata.SandboxContainer })
	return append([]string{policydata.SandboxContainer}, rest...)
}

func notExpressible(format string, args ...any) error {
	return fmt.Errorf("%s %w", fmt.Sprintf(format, args...), ErrNotExpressible)
}

// container converts one container.
func (c *converter) container(name string) (container, error) {
	from := c.policy.Containers[name]
	if from.Image.From == policydata.Layers {
		return container{}, notExpressible("an image of dm-verity layers")
	}
	args, err := arguments(from)
	if err != nil {
		return container{}, err
	}
	env, err := environment(from.Env)
	if err != nil {
		return container{}, err
	}
	out := container{
		OCI: oci{
			Version: c.policy.Common.OCIVersions[0],
			Process: process{
				Terminal: from.Terminal, User: from.OCI.Process.User, Args: args, Env: env, Cwd: from.Cwd,
				Capabilities: c.capabilities(from.Capabilities), NoNewPrivileges: from.NoNewPrivs,
			},
			Root:        root{Path: "$(root_path)", Readonly: from.ReadonlyRoot},
			Mounts:      c.mounts(from),
			Annotations: c.annotations(name, from),
			Linux:       c.linux(from),
		},
		Storages: []storage{}, Devices: deviceList(from), PIDNS: from.PIDNS, Exec: from.Exec, AnnotationPatterns: c.annotationPatterns(from),
	}
	if out.Exec == nil {
		out.Exec = [][]string{}
	}
	for _, s := range from.Storages {
		out.Storages = append(out.Storages, c.storage(s, true))
	}
	return out, nil
}

// arguments writes a dollar sign twice, except where the rules fill in the pod's
// name. What is not known at all is written as the one placeholder for anything.
func arguments(from *policydata.Container) ([]string, error) {
	args := make([]string, len(from.Args))
	for i, arg := range from.Args {
		m, open := from.ArgMatches[fmt.Sprint(i)]
		switch {
		case !open:
			args[i] = strings.ReplaceAll(arg, "$", "$$")
		case m.Template != "" && !strings.Contains(m.Template, "$(sandbox-namespace)") && !strings.Contains(m.Template, "$(sandbox-uid)"):
			args[i] = m.Template
		default:
			return nil, notExpressible("argument %d, whose value is known only at run time,", i)
		}
	}
	return args, nil
}

// reserved are placeholders that upstream's rules see in any value.
var reserved = regexp.MustCompile(`\$\((?:sandbox-name|sandbox-namespace|pod-uid|pod-ip|host-ip|node-name|host-name|resource-field|todo-annotation)\)`)

// addressStart begins the pattern of an address.
const addressStart = `^(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|`

func environment(env policydata.Env) ([]string, error) {
	out := []string{}
	if len(env.Hashes) > 0 {
		return nil, notExpressible("a variable that is bound by its hash")
	}
	for _, entry := range env.Fixed {
		if reserved.MatchString(entry) {
			name, _, _ := strings.Cut(entry, "=")
			return nil, notExpressible("a value of %s that looks like a placeholder", name)
		}
		out = append(out, entry)
	}
	for name, template := range env.Templates {
		switch {
		case template == "$(sandbox-name)":
			out = append(out, name+"="+template)
		case strings.Contains(template, "$(sandbox-uid)"):
			out = append(out, name+"=$(pod-uid)")
		case strings.Contains(template, "$(sandbox-name)"):
			return nil, notExpressible("the pod's name inside the value of %s", name)
		default:
			out = append(out, name+"="+template)
		}
	}
	for _, patterns := range []map[string]string{env.Patterns, env.Optional} {
		for name, pattern := range patterns {
			if strings.HasPrefix(pattern, addressStart) && strings.HasSuffix(pattern, "{2,7})$") && !strings.Contains(pattern, "(?:,") {
				out = append(out, name+"=$(pod-ip)")
			} else {
				out = append(out, name+"=$(resource-field)")
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func (c *converter) capabilities(set string) policydata.Capabilities {
	found := c.policy.Common.Capabilities[set]
	short := func(names []string) []string {
		if set == "default" && len(names) > 0 {
			return []string{"$(default_caps)"}
		}
		return append([]string{}, names...)
	}
	return policydata.Capabilities{
		Ambient: short(found.Ambient), Bounding: short(found.Bounding), Effective: short(found.Effective),
		Inheritable: short(found.Inheritable), Permitted: short(found.Permitted),
	}
}

func (c *converter) mounts(from *policydata.Container) []mount {
	out := []mount{}
	for _, m := range c.policy.Common.Mounts[from.BaseMounts] {
		out = append(out, mount{m.Destination, m.Source, m.Type, m.Options})
	}
	for _, destination := range slices.Sorted(maps.Keys(from.Mounts)) {
		m := from.Mounts[destination]
		source := m.Source
		switch m.From {
		case policydata.MountShared:
			source = "$(sfprefix)" + regexp.QuoteMeta(m.Source) + "$"
		case policydata.MountStorage:
			source = ""
		case policydata.MountLocal:
			source = localDir + regexp.QuoteMeta(m.Source) + "$"
		}
		out = append(out, mount{destination, source, m.Type, propagated(m)})
	}
	return out
}

// propagated returns a mount's options with how it spreads. Upstream takes a path of the host as far as the manifest asks
// for, and every other volume for private.
func propagated(m policydata.Mount) []string {
	i := slices.Index(m.ExtraOptions, "rprivate")
	if i < 0 {
		return m.Options
	}
	word := m.ExtraOptions[i]
	if m.From != policydata.MountStorage {
		word = m.ExtraOptions[len(m.ExtraOptions)-1]
	}
	return slices.Insert(slices.Clone(m.Options), 1, word)
}

// localDir begins the pattern of an emptyDir that is a directory of the guest.
const localDir = "^$(cpath)/$(sandbox-id)/rootfs/local/"

// storage converts a storage. Those of containers have patterns as mount points.
func (c *converter) storage(s policydata.Storage, inContainer bool) storage {
	out := storage{
		Driver: s.Driver, DriverOptions: append([]string{}, s.DriverOptions...), Source: s.Source, FSType: s.FSType,
		Options: append([]string{}, s.Options...), MountPoint: s.MountPoint, Shared: s.Shared, FSGroup: s.FSGroup,
	}
	if name, local := strings.CutPrefix(s.MountPoint, "$(local)/"); local {
		out.MountPoint = localDir + regexp.QuoteMeta(name) + "$"
	} else if s.Driver == "$(block)" {
		out.Driver, out.Source, out.MountPoint = "", "", "$(spath)/$(b64_device_id)"
	} else if inContainer {
		out.MountPoint = "^" + regexp.QuoteMeta(s.MountPoint) + "$"
	}
	return out
}

const cri = "io.kubernetes.cri."

func (c *converter) annotations(name string, from *policydata.Container) map[string]string {
	out := map[string]string{
		cri + "container-type":                  string(from.Type),
		cri + "sandbox-id":                      "^[a-z0-9]{64}$",
		cri + "sandbox-name":                    c.policy.Sandbox.Name,
		cri + "sandbox-namespace":               c.policy.Sandbox.Namespace,
		"io.katacontainers.pkg.oci.bundle_path": strings.ReplaceAll(c.policy.Common.BundlePath, "$(container-id)", "$(bundle-id)"),
		"io.katacontainers.pkg.oci.container_type": map[policydata.ContainerType]string{
			policydata.TypeSandbox: "pod_sandbox", policydata.TypeContainer: "pod_container",
		}[from.Type],
	}
	if from.Type == policydata.TypeSandbox {
		uid := `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
		out[cri+"sandbox-log-directory"] = "^/var/log/pods/$(sandbox-namespace)_$(sandbox-name)_" + uid + "$"
	} else {
		out[cri+"container-name"] = name
		out[cri+"image-name"] = from.OCI.Annotations.ImageName
	}
	for _, more := range []map[string]string{from.Annotations.Patterns, from.Annotations.Optional, from.Annotations.Fixed} {
		maps.Copy(out, more)
	}
	return out
}

func (c *converter) annotationPatterns(from *policydata.Container) map[string]string {
	out := map[string]string{}
	maps.Copy(out, c.policy.Common.Annotations.Keys)
	for key, pattern := range c.policy.Common.Annotations.Patterns {
		out["^"+regexp.QuoteMeta(key)+"$"] = pattern
	}
	if from.VFIO.Count > 0 {
		out[`^cdi\.k8s\.io/vfio[0-9]+$`] = from.VFIO.Annotation
	}
	return out
}

func (c *converter) linux(from *policydata.Container) linux {
	paths := c.policy.Common.Paths[from.Paths]
	out := linux{
		Namespaces: []namespace{}, MaskedPaths: append([]string{}, paths.Masked...), ReadonlyPaths: append([]string{}, paths.Readonly...),
		Devices: []linuxDevice{}, Sysctl: map[string]string{},
	}
	for _, kind := range from.Namespaces {
		out.Namespaces = append(out.Namespaces, namespace{Type: kind})
	}
	for _, path := range from.Devices {
		out.Devices = append(out.Devices, linuxDevice{Path: path})
	}
	maps.Copy(out.Sysctl, from.Sysctl.Optional)
	maps.Copy(out.Sysctl, from.Sysctl.Fixed)
	return out
}

func deviceList(from *policydata.Container) []device {
	out := []device{}
	for _, path := range from.Devices {
		out = append(out, device{ContainerPath: path, Options: []string{}})
	}
	for range from.VFIO.Count {
		out = append(out, device{ContainerPath: from.VFIO.Path, Type: from.VFIO.Type, Options: []string{}})
	}
	return out
}
