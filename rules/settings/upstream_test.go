// SPDX-License-Identifier: Apache-2.0

package settings_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/rules/policydata"
	"portcullis/rules/settings"
)

const upstreamText = `{
 "pause_container": {"Root": {"Readonly": true}}, "other_container": {}, "volumes": {}, "mount_destinations": ["/sys/fs/cgroup"], "devices": {},
 "sandbox": {"storages": [{"driver": "ephemeral", "driver_options": [], "source": "shm", "fstype": "tmpfs", "options": [], "mount_point": "/shm", "fs_group": null, "shared": false}]},
 "common": {"cpath": "/run/kata-containers/shared/containers(?:/passthrough)?", "spath": "/s", "root_path": "/run/kata-containers/$(bundle-id)/rootfs", "sfprefix": "^x",
  "ip_p": "[0-9]{1,5}", "ipv4_a": "[0-9.]+", "svc_name_downward_env": "[A-Z]+", "dns_label": "[a-z]+", "image_layer_verification": "none",
  "default_caps": ["CAP_KILL"], "privileged_caps": ["CAP_KILL", "CAP_BPF"]},
 "kata_config": {"oci_version": "1.2.0", "enable_configmap_secret_storages": false},
 "cluster_config": {"pause_container_image": "pause:1", "guest_pull": true, "emptydir_type": "block-plain", "cgroup_mount_extras_allowed": ["nsdelegate"]},
 "request_defaults": {
  "CreateContainerRequest": {"allow_env_regex": ["^$(svc_name_downward_env)_HOST=$(ipv4_a)$", "^A=1|B=2$"]},
  "CopyFileRequest": ["$(sfprefix)"], "ExecProcessRequest": {"allowed_commands": [], "regex": []},
  "UpdateRoutesRequest": {"forbidden_device_names": ["lo"], "forbidden_source_regex": ["^127\\."]},
  "UpdateInterfaceRequest": {"allow_raw_flags": 128, "forbidden_names": ["lo"], "forbidden_hw_addrs": []},
  "AddARPNeighborsRequest": {"forbidden_device_names": ["lo"], "forbidden_cidrs_regex": [], "allowed_states": [2]},
  "CloseStdinRequest": false, "ReadStreamRequest": false, "UpdateEphemeralMountsRequest": false, "WriteStreamRequest": false, "GetDiagnosticDataRequest": false}
}`

func TestUpstreamsSettingsAreRead(t *testing.T) {
	base := settings.DropIn{Name: "genpolicy-settings.json", Text: []byte(upstreamText)}
	logs := settings.DropIn{Name: "99.json", Text: []byte(`[{"op": "replace", "path": "/request_defaults/ReadStreamRequest", "value": true},
		{"op": "add", "path": "/request_defaults/ExecProcessRequest/allowed_commands/-", "value": ["ls"]}]`)}
	s, ignored, err := settings.FromUpstream(base, logs)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Requests.ReadStream || len(s.Requests.Exec.Commands) != 1 || s.Generate.EmptyDir != "block-plain" || s.Generate.PauseImage != "pause:1" ||
		s.Common.RootPath != "/run/kata-containers/$(container-id)/rootfs" || !slices.Equal(s.Common.OCIVersions, []string{"1.2.0"}) {
		t.Errorf("settings are %+v", s)
	}
	whole := s.Common.Env.Whole
	if !slices.Contains(whole, "^[A-Z]+_HOST=[0-9.]+$") || !slices.Contains(whole, "^(?:^A=1|B=2$)$") {
		t.Errorf("patterns are %q", whole)
	}
	loopback := func(pattern string) bool { return regexp.MustCompile(pattern).MatchString("127.9.9.9") }
	if forbidden := s.Requests.Routes.ForbiddenSources; !slices.ContainsFunc(forbidden[len(forbidden)-1:], loopback) {
		t.Errorf("a forbidden beginning is allowed: %q", forbidden)
	}
	var keys []string
	for _, i := range ignored {
		keys = append(keys, i.Key)
	}
	want := "common.sfprefix devices kata_config.enable_configmap_secret_storages mount_destinations other_container pause_container request_defaults.CopyFileRequest volumes"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("ignored %s, want %s", got, want)
	}
}

func TestUpstreamsSettingsAreRefused(t *testing.T) {
	change := func(from, to string) settings.DropIn {
		return settings.DropIn{Name: "test", Text: []byte(strings.Replace(upstreamText, from, to, 1))}
	}
	patch := func(text string) settings.DropIn { return settings.DropIn{Name: "patch", Text: []byte(text)} }
	for _, test := range []struct {
		name  string
		base  settings.DropIn
		patch []settings.DropIn
		want  string
	}{
		{"text that is no JSON", change("{", "["), nil, "test"},
		{"a kind of volume that does not exist", change("block-plain", "nfs"), nil, "empty_dir"},
		{"a patch of nothing", change("", ""), []settings.DropIn{patch(`[{"op": "remove", "path": "/nothing"}]`)}, "patch"},
		{"a patch that is no patch", change("", ""), []settings.DropIn{patch(`{}`)}, "patch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := settings.FromUpstream(test.base, test.patch...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one that says %q", err, test.want)
			}
		})
	}
}

// Keys of other releases are taken or warned of; what a release does not say stays strict.
func TestSettingsOfEveryReleaseAreTaken(t *testing.T) {
	read := func(text string) (*settings.Settings, string) {
		t.Helper()
		s, ignored, err := settings.FromUpstream(settings.DropIn{Name: "genpolicy-settings.json", Text: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, i := range ignored {
			keys = append(keys, i.Key)
		}
		return s, strings.Join(keys, " ")
	}
	const common = `"common": {"cpath": "/run/kata-containers/shared/containers", "ipv4_a": "[0-9.]+"`
	for _, test := range []struct {
		name, text        string
		image             policydata.ImageFrom
		emptyDir, ignored string
	}{
		{"3.3", `{` + common + `, "mount_source_cpath": "/x"}, "cluster_config": {"default_namespace": "default"}, "request_defaults": {}}`,
			policydata.Host, "local", "cluster_config.default_namespace common.mount_source_cpath"},
		{"3.28", `{` + common + `}, "cluster_config": {"guest_pull": true, "encrypted_emptydir": true, "pause_container_id_policy": "v1"}}`,
			policydata.GuestPull, "block-encrypted", "cluster_config.pause_container_id_policy"},
		{"4.0", `{` + common + `}, "cluster_config": {"guest_pull": true, "emptydir_type": "block-plain"}}`, policydata.GuestPull, "block-plain", ""},
		{"Microsoft's layers", `{` + common + `, "image_layer_verification": "host-tarfs-dm-verity"}, "kata_config": {"confidential_guest": true}}`,
			policydata.Layers, "local", "kata_config.confidential_guest"},
		{"a path that begins as a pattern", `{"common": {"cpath": "^/run/kata-containers/shared/containers"}, "cluster_config": {"guest_pull": true}}`,
			policydata.GuestPull, "local", ""},
		{"a key of tomorrow", `{` + common + `}, "cluster_config": {"guest_pull": true, "new": {"a": 1}}, "more": []}`,
			policydata.GuestPull, "local", "cluster_config.new more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ignored := read(test.text)
			if s.Generate.ImageFrom != test.image || s.Generate.EmptyDir != test.emptyDir || ignored != test.ignored {
				t.Errorf("images %s, emptyDir %s, ignored %q", s.Generate.ImageFrom, s.Generate.EmptyDir, ignored)
			}
			if !slices.Contains(s.Requests.Interface.ForbiddenNames, "lo") || len(s.Requests.AddARPNeighbors.States) == 0 {
				t.Errorf("what the release does not say is open: %+v", s.Requests)
			}
		})
	}
	s, _ := read(`{` + common + `}, "request_defaults": {"CreateContainerRequest": {"allow_env_regex": [], "allow_env_regex_map": {"POD_IP": "^$(ipv4_a)$"}}}}`)
	if got := s.Common.Env.Names["POD_IP"]; got != "^[0-9.]+$" {
		t.Errorf("pattern by name is %q", got)
	}
}
