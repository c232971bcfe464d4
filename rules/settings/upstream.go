// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"portcullis/internal/strictjson"
	"portcullis/rules/policydata"
)

// Ignored is a key of upstream's settings that means nothing here.
type Ignored struct{ Key, Reason string }

// FromUpstream reads upstream's genpolicy-settings.json with its drop-ins, each an RFC 6902 patch, in order. What they set goes
// over the settings of the platform that they describe: guest-pull, or host-pull where guest_pull is false. Strictness stays this
// project's; compat-kata relaxes it. Keys that mean nothing here are returned, sorted, each with the reason, also those that no
// release is known to have: settings of every release from 3.3 on are taken, and of Microsoft's branches.
func FromUpstream(base DropIn, patches ...DropIn) (*Settings, []Ignored, error) {
	text := base.Text
	for _, d := range append([]DropIn{base}, patches...) {
		if err := strictjson.Check(d.Text); err != nil {
			return nil, nil, fmt.Errorf("read settings %s: %w", d.Name, err)
		}
	}
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
	if err := strictjson.Unmarshal(text, &up); err != nil {
		return nil, nil, fmt.Errorf("read settings %s: %w", base.Name, err)
	}
	ignored, err := ignoredKeys(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read settings %s: %w", base.Name, err)
	}
	s, err := Load(up.platform())
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
		Layers      string   `json:"image_layer_verification"`
	} `json:"common"`
	Kata struct {
		OCIVersion string `json:"oci_version"`
	} `json:"kata_config"`
	Cluster struct {
		PauseImage   string   `json:"pause_container_image"`
		GuestPull    bool     `json:"guest_pull"`
		EmptyDir     string   `json:"emptydir_type"`
		Encrypted    *bool    `json:"encrypted_emptydir"` // before emptydir_type
		CgroupExtras []string `json:"cgroup_mount_extras_allowed"`
	} `json:"cluster_config"`
	Sandbox struct {
		Storages []policydata.Storage `json:"storages"`
	} `json:"sandbox"`
	Requests upstreamRequests `json:"request_defaults"`
}

type upstreamRequests struct {
	Create struct {
		Env   []string          `json:"allow_env_regex"`
		Names map[string]string `json:"allow_env_regex_map"` // name -> pattern of the value
	} `json:"CreateContainerRequest"`
	Exec struct {
		Commands [][]string `json:"allowed_commands"`
		Regex    []string   `json:"regex"`
	} `json:"ExecProcessRequest"`
	Routes *struct {
		Devices []string `json:"forbidden_device_names"`
		Sources []string `json:"forbidden_source_regex"`
	} `json:"UpdateRoutesRequest"`
	Interface *struct {
		Flags     uint32   `json:"allow_raw_flags"`
		Names     []string `json:"forbidden_names"`
		Addresses []string `json:"forbidden_hw_addrs"`
	} `json:"UpdateInterfaceRequest"`
	ARP *struct {
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

// platform is the one that upstream's settings describe.
func (up *upstream) platform() string {
	switch {
	case up.Common.Layers == "host-tarfs-dm-verity":
		return "tardev"
	case up.Cluster.GuestPull || up.Common.Layers == "guest-pull":
		return DefaultPlatform
	}
	return "host-pull"
}

// apply writes what upstream's settings set over s.
func (up *upstream) apply(s *Settings) {
	c := &s.Common
	set(&c.StorageDir, up.Common.SPath)
	set(&c.RootPath, strings.ReplaceAll(up.Common.RootPath, "$(bundle-id)", "$(container-id)"))
	if up.Common.CPath != "" {
		c.SharedDirs = sharedDirs(strings.TrimPrefix(up.Common.CPath, "^"))
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
	set(&s.Generate.EmptyDir, up.emptyDir())
	if m, ok := s.Generate.Container.Mounts["/sys/fs/cgroup"]; ok && up.Cluster.CgroupExtras != nil {
		m.ExtraOptions = up.Cluster.CgroupExtras
		s.Generate.Container.Mounts["/sys/fs/cgroup"] = m
	}
	up.applyRequests(s)
}

// emptyDir is the kind of volume that an emptyDir is.
func (up *upstream) emptyDir() string {
	encrypted := up.Cluster.Encrypted
	switch {
	case up.Cluster.EmptyDir != "" && up.Cluster.EmptyDir != "shared-fs":
		return up.Cluster.EmptyDir
	case encrypted != nil && *encrypted:
		return "block-encrypted"
	}
	return "local" // shared-fs, and what releases do that have neither key
}

func (up *upstream) applyRequests(s *Settings) {
	in, out := &up.Requests, &s.Requests
	for _, pattern := range in.Create.Env {
		s.Common.Env.Whole = append(s.Common.Env.Whole, anchored(up.expand(pattern)))
	}
	for name, pattern := range in.Create.Names {
		s.Common.Env.Names[name] = anchored(up.expand(pattern))
	}
	out.CloseStdin, out.ReadStream, out.WriteStream = in.CloseStdin, in.ReadStream, in.WriteStream
	out.GetDiagnosticData, out.UpdateEphemeralMounts = in.Diagnostic, in.UpdateMounts
	out.Exec.Commands, out.Exec.Stdin = in.Exec.Commands, in.WriteStream
	out.Exec.Terminal = len(in.Exec.Commands)+len(in.Exec.Regex) > 0
	out.Exec.Joined = anchoredAll(in.Exec.Regex)
	// What a release does not know yet stays as the platform has it.
	if i := in.Interface; i != nil {
		out.Interface = policydata.Interface{RawFlags: i.Flags, ForbiddenNames: i.Names, ForbiddenHWAddrs: i.Addresses}
	}
	if r := in.Routes; r != nil {
		out.Routes.ForbiddenDevices = r.Devices
		out.Routes.ForbiddenSources = append(out.Routes.ForbiddenSources, containing(r.Sources)...)
	}
	if a := in.ARP; a != nil {
		out.AddARPNeighbors.ForbiddenDevices = a.Devices
		if len(a.States) > 0 {
			out.AddARPNeighbors.States = a.States
		}
		out.AddARPNeighbors.ForbiddenAddresses = append(out.AddARPNeighbors.ForbiddenAddresses, containing(a.Addresses)...)
	}
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
	byClaim    = "a claim's volume is the host's, whatever its class"
	byNobody   = "no release is known to have it; check that nothing depends on it"
)

// meaningless are the keys that are accepted and not read, with the reason. A key stands for all below it.
var meaningless = map[string]string{
	"cluster_config.default_namespace":             "a pod without a namespace may be applied to any",
	"cluster_config.pause_container_id_policy":     byRules,
	"common.bundle_path_prefix":                    byPlatform,
	"common.coco_ephemeral_storage_classes":        byClaim,
	"common.dns_subdomain":                         byRules,
	"common.mount_source_cpath":                    byRules,
	"common.pod_uid":                               byRules,
	"common.s_source1":                             byRules,
	"common.s_source2":                             byRules,
	"common.sfprefix":                              byRules,
	"common.smb_storage_classes":                   byClaim,
	"common.svc_name":                              "service links of every name are known",
	"common.virtio_blk_storage_classes":            byClaim,
	"device_annotations":                           byPlatform,
	"devices":                                      byPlatform,
	"kata_config.confidential_guest":               byPlatform,
	"kata_config.enable_configmap_secret_storages": byPlatform,
	"mount_destinations":                           byName,
	"other_container":                              byPlatform,
	"pause_container":                              byPlatform,
	"request_defaults.CopyFileRequest":             byPlatform,
	"request_defaults.ExecProcessRequest.commands": "deprecated: allowed_commands takes its place",
	"volumes": byPlatform,
}

// ignoredKeys lists the keys of the text that are not read.
func ignoredKeys(text []byte) ([]Ignored, error) {
	var given map[string]any
	if err := strictjson.Unmarshal(text, &given); err != nil {
		return nil, err
	}
	var out []Ignored
	compareKeys("", given, reflect.TypeFor[upstream](), &out)
	return out, nil
}

// compareKeys adds the keys of given that the type does not have.
func compareKeys(at string, given map[string]any, known reflect.Type, out *[]Ignored) {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		path := strings.TrimPrefix(at+"."+key, ".")
		if reason, ok := meaningless[path]; ok {
			*out = append(*out, Ignored{path, reason})
			continue
		}
		field, ok := fieldOf(known, key)
		if !ok {
			*out = append(*out, Ignored{path, byNobody})
			continue
		}
		if below, isTable := given[key].(map[string]any); isTable && field.Kind() == reflect.Struct {
			compareKeys(path, below, field, out)
		}
	}
}

// fieldOf returns the type of the field that JSON calls key, without pointers.
func fieldOf(in reflect.Type, key string) (reflect.Type, bool) {
	for i := range in.NumField() {
		if f := in.Field(i); f.Tag.Get("json") == key {
			if f.Type.Kind() == reflect.Pointer {
				return f.Type.Elem(), true
			}
			return f.Type, true
		}
	}
	return nil, false
}
