package settings

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"portcullis/rules/policydata"
)

// Ignored is a key of upstream's settings that means nothing here.
type Ignored struct{ Key, Reason string }

// FromUpstream reads upstream's genpolicy-settings.json with its drop-ins, each
// an RFC 6902 patch, in order. What they set goes over the settings of the
// platform that they describe: guest-pull, or host-pull where guest_pull is
// false. Strictness stays this project's; compat-kata relaxes it. Keys that mean
// nothing here are returned, sorted, each with the reason; a key that is neither
// known nor on that list is an error.
func FromUpstream(base DropIn, patches ...DropIn) (*Settings, []Ignored, error) {
	text := base.Text
	for _, p := range patches {
		patch, err := jsonpatch.DecodePatch(p.Text)
		if err != nil {
			return nil, nil, fmt.Errorf("read settings %s: %w", p.Name, err)
		}
		if text, err = patch.Apply(text); err != nil {
			return nil, nil, fmt.Errorf("apply settings %s: %w", p.Name, err)
		}
	}
	var up upstream
	if err := json.Unmarshal(text, &up); err != nil {
		return nil, nil, fmt.Errorf("read settings %s: %w", base.Name, err)
	}
	ignored, err := ignoredKeys(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read settings %s: %w", base.Name, err)
	}
	platform := DefaultPlatform
	if !up.Cluster.GuestPull {
		platform = "host-pull"
	}
	s, err := Load(platform)
	if err != nil {
		return nil, nil, err
	}
	up.apply(s)
	if err := s.validate(); err != nil {
		return nil, nil, fmt.Errorf("read settings %s: %w", base.Name, err)
	}
	return s, ignored, nil
}

// upstream is what is taken over of upstream's settings.
type upstream struct {
	Common struct {
		CPath       string   `json:"cpath"`
		SPath       string   `json:"spath"`
		RootPath    string   `json:"root_path"`
		IPv4        string   `json:"ipv4_a"`
		Port        string   `json:"ip_p"`
		ServiceName string   `json:"svc_name_downward_env"`
		Label       string   `json:"dns_label"`
		Default     []string `json:"default_caps"`
		Privileged  []string `json:"privileged_caps"`
	} `json:"common"`
	Kata struct {
		OCIVersion string `json:"oci_version"`
	} `json:"kata_config"`
	Cluster struct {
		PauseImage   string   `json:"pause_container_image"`
		GuestPull    bool     `json:"guest_pull"`
		EmptyDir     string   `json:"emptydir_type"`
		CgroupExtras []string `json:"cgroup_mount_extras_allowed"`
	} `json:"cluster_config"`
	Sandbox struct {
		Storages []policydata.Storage `json:"storages"`
	} `json:"sandbox"`
	Requests upstreamRequests `json:"request_defaults"`
}

type upstreamRequests struct {
	Create struct {
		Env []string `json:"allow_env_regex"`
	} `json:"CreateContainerRequest"`
	Exec struct {
		Commands [][]string `json:"allowed_commands"`
		Regex    []string   `json:"regex"`
	} `json:"ExecProcessRequest"`
	Routes struct {
		Devices []string `json:"forbidden_device_names"`
		Sources []string `json:"forbidden_source_regex"`
	} `json:"UpdateRoutesRequest"`
	Interface struct {
		Flags     uint32   `json:"allow_raw_flags"`
		Names     []string `json:"forbidden_names"`
		Addresses []string `json:"forbidden_hw_addrs"`
	} `json:"UpdateInterfaceRequest"`
	ARP struct {
		Devices   []string `json:"forbidden_device_names"`
		Addresses []string `json:"forbidden_cidrs_regex"`
		States    []uint32 `json:"allowed_states"`
	} `json:"AddARPNeighborsRequest"`
	CloseStdin   bool `json:"CloseStdinRequest"`
	ReadStream   bool `json:"ReadStreamRequest"`
	WriteStream  bool `json:"WriteStreamRequest"`
	Diagnostic   bool `json:"GetDiagnosticDataRequest"`
	UpdateMounts bool `json:"UpdateEphemeralMountsRequest"`
}

// apply writes what upstream's settings set over s.
func (up *upstream) apply(s *Settings) {
	c := &s.Common
	set(&c.StorageDir, up.Common.SPath)
	set(&c.RootPath, strings.ReplaceAll(up.Common.RootPath, "$(bundle-id)", "$(container-id)"))
	if up.Common.CPath != "" {
		c.SharedDirs = sharedDirs(up.Common.CPath)
	}
	if up.Kata.OCIVersion != "" {
		c.OCIVersions = []string{up.Kata.OCIVersion}
	}
	if len(up.Common.Default) > 0 {
		c.Capabilities["default"] = policydata.Capabilities{Bounding: up.Common.Default, Effective: up.Common.Default, Permitted: up.Common.Default}
	}
	if len(up.Common.Privileged) > 0 {
		s.Generate.PrivilegedCapabilities.Names = up.Common.Privileged
	}
	if len(up.Sandbox.Storages) > 0 {
		s.Sandbox.Storages = up.Sandbox.Storages
	}
	set(&s.Generate.PauseImage, up.Cluster.PauseImage)
	set(&s.Generate.EmptyDir, strings.TrimSuffix(up.Cluster.EmptyDir, "-fs"))
	if m, ok := s.Generate.Container.Mounts["/sys/fs/cgroup"]; ok && up.Cluster.CgroupExtras != nil {
		m.ExtraOptions = up.Cluster.CgroupExtras
		s.Generate.Container.Mounts["/sys/fs/cgroup"] = m
	}
	up.applyRequests(s)
}

func (up *upstream) applyRequests(s *Settings) {
	in, out := &up.Requests, &s.Requests
	for _, pattern := range in.Create.Env {
		s.Common.Env.Whole = append(s.Common.Env.Whole, anchored(up.expand(pattern)))
	}
	out.CloseStdin, out.ReadStream, out.WriteStream = in.CloseStdin, in.ReadStream, in.WriteStream
	out.GetDiagnosticData, out.UpdateEphemeralMounts = in.Diagnostic, in.UpdateMounts
	out.Exec.Commands, out.Exec.Stdin = in.Exec.Commands, in.WriteStream
	out.Exec.Terminal = len(in.Exec.Commands)+len(in.Exec.Regex) > 0
	out.Exec.Joined = anchoredAll(in.Exec.Regex)
	out.Interface = policydata.Interface{RawFlags: in.Interface.Flags, ForbiddenNames: in.Interface.Names, ForbiddenHWAddrs: in.Interface.Addresses}
	out.Routes.ForbiddenDevices = in.Routes.Devices
	out.Routes.ForbiddenSources = append(out.Routes.ForbiddenSources, containing(in.Routes.Sources)...)
	out.AddARPNeighbors.ForbiddenDevices, out.AddARPNeighbors.States = in.ARP.Devices, in.ARP.States
	out.AddARPNeighbors.ForbiddenAddresses = append(out.AddARPNeighbors.ForbiddenAddresses, containing(in.ARP.Addresses)...)
}

// expand replaces the variables of upstream's patterns of variables.
func (up *upstream) expand(pattern string) string {
	return strings.NewReplacer("$(ipv4_a)", up.Common.IPv4, "$(ip_p)", up.Common.Port,
		"$(svc_name_downward_env)", up.Common.ServiceName, "$(dns_label)", up.Common.Label).Replace(pattern)
}

func anchored(pattern string) string {
	if policydata.Anchored(pattern) == nil {
		return pattern
	}
	return "^(?:" + pattern + ")$"
}

func anchoredAll(patterns []string) []string {
	var out []string
	for _, pattern := range patterns {
		out = append(out, anchored(pattern))
	}
	return out
}

// containing anchors patterns of what is forbidden, which match anywhere in a
// value: to hold them to the whole value would allow more.
func containing(patterns []string) []string {
	var out []string
	for _, pattern := range patterns {
		if policydata.Anchored(pattern) != nil {
			pattern = "^(?s:.*)(?:" + pattern + ")(?s:.*)$"
		}
		out = append(out, pattern)
	}
	return out
}

// sharedDirs expands the one optional part that upstream's pattern has.
func sharedDirs(pattern string) []string {
	dir, optional := strings.CutSuffix(pattern, "(?:/passthrough)?")
	if optional {
		return []string{dir, dir + "/passthrough", dir + "/watchable"}
	}
	return []string{dir}
}

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
}

const (
	byRules    = "the rules say it themselves"
	byPlatform = "stated by the platform's own settings"
	byName     = "variables and mounts are known by name"
)

// meaningless are the keys that are accepted and not read, with the reason. A key
// stands for all below it.
var meaningless = map[string]string{
	"common.image_layer_verification": "no longer read by upstream either",
	"common.sfprefix":                 byRules,
	"devices":                         byPlatform,
	"kata_config.enable_configmap_secret_storages": byPlatform,
	"mount_destinations":                           byName,
	"other_container":                              byPlatform,
	"pause_container":                              byPlatform,
	"request_defaults.CopyFileRequest":             byPlatform,
	"request_defaults.ExecProcessRequest.commands": "deprecated: allowed_commands takes its place",
	"volumes": byPlatform,
}

// ignoredKeys lists the keys of the text that meaningless names, and refuses
// those that nothing names.
func ignoredKeys(text []byte) ([]Ignored, error) {
	var given map[string]any
	if err := json.Unmarshal(text, &given); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(upstream{})
	if err != nil {
		return nil, err
	}
	var known map[string]any
	if err := json.Unmarshal(raw, &known); err != nil {
		return nil, err
	}
	var out []Ignored
	if err := compareKeys("", given, known, &out); err != nil {
		return nil, err
	}
	return out, nil
}

func compareKeys(at string, given, known map[string]any, out *[]Ignored) error {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		path := strings.TrimPrefix(at+"."+key, ".")
		if reason, ok := meaningless[path]; ok {
			*out = append(*out, Ignored{path, reason})
			continue
		}
		want, ok := known[key]
		if !ok {
			return fmt.Errorf("unknown key %s", path)
		}
		below, isTable := given[key].(map[string]any)
		if table, ok := want.(map[string]any); ok && isTable {
			if err := compareKeys(path, below, table, out); err != nil {
				return err
			}
		}
	}
	return nil
}
