// SPDX-License-Identifier: Apache-2.0

package learn_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/rulestest"
)

type object = map[string]any

// attack changes the requests of the small pod as a hostile host would.
type attack struct {
	name     string
	change   func(*testing.T, []rulestest.Request) []rulestest.Request
	settings string
}

// attacks are of the kinds that were once allowed, and of those that settings could be thought to allow.
var attacks = []attack{
	{name: "another program", change: ofApp(func(in object) { process(in)["Args"] = []any{"/bin/sh"} })},
	{name: "a host file in place of an emptyDir", change: ofApp(func(in object) {
		m := mountAt(in, "/scratch")
		m["source"] = sharedFile(in, "scratch")
		in["storages"] = slices.DeleteFunc(in["storages"].([]any), func(s any) bool { return s.(object)["driver"] == "blk" })
	})},
	{name: "a network of its own", change: ofApp(func(in object) {
		linux(in)["Namespaces"] = append(linux(in)["Namespaces"].([]any), object{"Type": "network", "Path": ""})
	})},
	{name: "an id between two grammars", change: renamed(func(id string) string { return id[:64-17] + "-" + id[:16] })},
	{name: "an id that is a directory of the agent", change: renamed(func(string) string { return "watchable" })},
	{name: "a volume of the image from the host", change: ofApp(func(in object) {
		addMount(in, object{"destination": "/var/cache/nginx", "type_": "bind", "source": sharedFile(in, "volume"), "options": []any{"rbind", "rprivate", "rw"}})
	})},
	{name: "emptyDirs exchanged", change: of("side", func(in object) {
		a, b := mountAt(in, "/scratch"), mountAt(in, "/cache")
		a["source"], b["source"] = b["source"], a["source"]
	})},
	{name: "an emptyDir without its key", change: ofApp(func(in object) {
		for _, s := range in["storages"].([]any) {
			if s := s.(object); s["driver"] != "image_guest_pull" {
				s["driver_options"] = []any{"create_filesystem"}
			}
		}
	})},
	{name: "a local directory that is a bind", change: ofApp(func(in object) {
		in["storages"] = append(in["storages"].([]any), object{"driver": "local", "driver_options": []any{}, "source": "/dev/vda", "fstype": "bind",
			"options": []any{"bind"}, "mount_point": "/run", "shared": false, "fs_group": nil})
	})},
	{name: "a mount over those below it", change: ofApp(func(in object) {
		mounts := oci(in)["Mounts"].([]any)
		at := slices.IndexFunc(mounts, func(m any) bool { return m.(object)["destination"] == "/dev" })
		oci(in)["Mounts"] = append(slices.Delete(slices.Clone(mounts), at, at+1), mounts[at])
	})},
	{name: "a file of a ConfigMap that is another", change: ofKind("CopyFileRequest", "/one", func(in object) { in["data_sha256"] = strings.Repeat("ab", 32) })},
	{name: "a file beside the volumes", change: ofKind("CopyFileRequest", "/one", func(in object) { in["path"] = "/run/kata-containers/shared/containers/evil" })},
	{name: "a ConfigMap's mount from another place", change: ofApp(func(in object) { mountAt(in, "/etc/app")["source"] = "/run/kata-containers/image" })},
	{name: "another's root", change: ofApp(func(in object) { root(in)["Path"] = "/run/kata-containers/" + strings.Repeat("0", 64) + "/rootfs" })},
	{name: "the control group of a service", change: ofApp(func(in object) { linux(in)["CgroupsPath"] = "/system.slice/policyd.service" })},
	{name: "a mount of the host for temporary files", change: before("StartContainerRequest", rulestest.Request{Kind: "UpdateEphemeralMountsRequest", Input: object{
		"storages": []any{object{"driver": "ephemeral", "driver_options": []any{}, "source": "/run/kata-containers/shared/containers/evil", "fstype": "bind",
			"options": []any{"bind"}, "mount_point": "/run/kata-containers/sandbox/shm/../../x", "shared": false, "fs_group": nil}}}})},
	{name: "the app before its init container", change: appFirst, settings: "order = \"enforced\"\n"},
	{name: "a preloaded library", change: ofApp(func(in object) { process(in)["Env"] = append(process(in)["Env"].([]any), "LD_PRELOAD=/x.so") })},
	{name: "another user", change: ofApp(func(in object) { process(in)["User"].(object)["UID"] = 7 })},
	{name: "a capability", change: ofApp(func(in object) {
		bounding := process(in)["Capabilities"].(object)
		bounding["Bounding"] = append(bounding["Bounding"].([]any), "CAP_SYS_ADMIN")
	})},
	{name: "another image", change: ofApp(func(in object) { annotations(in)["io.kubernetes.cri.image-name"] = "evil.example/image:1" })},
	{name: "a hook", change: ofApp(func(in object) { oci(in)["Hooks"] = object{"Prestart": []any{object{"Path": "/x"}}} })},
	{name: "a device", change: ofApp(func(in object) { annotations(in)["cdi.k8s.io/vfio0"] = "nvidia.com/gpu=0" })},
	{name: "an annotation of Kata", change: ofApp(func(in object) { annotations(in)["io.katacontainers.pkg.oci.evil"] = "x" })},
	{name: "a path that is not hidden", change: ofApp(func(in object) {
		linux(in)["MaskedPaths"] = slices.DeleteFunc(linux(in)["MaskedPaths"].([]any), func(p any) bool { return p == "/proc/kcore" })
	})},
	{name: "an owner's file that is hidden", change: ofApp(func(in object) { linux(in)["MaskedPaths"] = append(linux(in)["MaskedPaths"].([]any), "/etc/ssl") })},
	{name: "a sysctl of the kernel", change: ofApp(func(in object) { linux(in)["Sysctl"] = object{"kernel.core_pattern": "|/x"} })},
	{name: "mounts that spread", change: ofApp(func(in object) { linux(in)["RootfsPropagation"] = "rshared" })},
	{name: "a writable root", change: ofApp(func(in object) { root(in)["Readonly"] = true })},
	{name: "shared memory of the host's", change: ofSandbox(func(s object) { s["source"], s["options"] = "/evil", append(s["options"].([]any), "bind") })},
	{name: "shared memory that runs programs", change: ofSandbox(func(s object) {
		s["options"] = slices.DeleteFunc(s["options"].([]any), func(o any) bool { return o == "noexec" })
	})},
	{name: "shared memory elsewhere", change: ofSandbox(func(s object) { s["mount_point"] = "/etc" })},
	{name: "another policy", change: before("StartContainerRequest", rulestest.Request{Kind: "SetPolicyRequest", Input: object{"policy": "package agent_policy"}})},
}

func oci(in object) object         { return in["OCI"].(object) }
func linux(in object) object       { return oci(in)["Linux"].(object) }
func process(in object) object     { return oci(in)["Process"].(object) }
func root(in object) object        { return oci(in)["Root"].(object) }
func annotations(in object) object { return oci(in)["Annotations"].(object) }

func mountAt(in object, destination string) object {
	for _, m := range oci(in)["Mounts"].([]any) {
		if m.(object)["destination"] == destination {
			return m.(object)
		}
	}
	return nil
}

func addMount(in, m object) { oci(in)["Mounts"] = append(oci(in)["Mounts"].([]any), m) }

// sharedFile is where a shim would put a file of the host for a container.
func sharedFile(in object, name string) string {
	return "/run/kata-containers/shared/containers/" + in["container_id"].(string) + "-0123456789abcdef-" + name
}

func copied(t *testing.T, requests []rulestest.Request) []rulestest.Request {
	t.Helper()
	raw, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	var out []rulestest.Request
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// isOf says whether a request creates the named container.
func isOf(r rulestest.Request, container string) bool {
	return r.Kind == "CreateContainerRequest" && annotations(r.Input)["io.kubernetes.cri.container-name"] == container
}

// where changes the first request that fits.
func where(fits func(rulestest.Request) bool, change func(object)) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return func(t *testing.T, requests []rulestest.Request) []rulestest.Request {
		out := copied(t, requests)
		i := slices.IndexFunc(out, fits)
		if i < 0 {
			t.Fatal("there is no such request")
		}
		change(out[i].Input)
		return out
	}
}

func of(container string, change func(object)) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return where(func(r rulestest.Request) bool { return isOf(r, container) }, change)
}

func ofApp(change func(object)) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return of("app", change)
}

func ofSandbox(change func(storage object)) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return where(func(r rulestest.Request) bool { return r.Kind == "CreateSandboxRequest" }, func(in object) {
		change(in["storages"].([]any)[0].(object))
	})
}

func ofKind(kind, pathEnd string, change func(object)) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return where(func(r rulestest.Request) bool {
		path, _ := r.Input["path"].(string)
		return r.Kind == kind && strings.HasSuffix(path, pathEnd) && r.Input["file_type"] == "Regular"
	}, change)
}

// renamed gives the app another id wherever it stands.
func renamed(to func(id string) string) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return func(t *testing.T, requests []rulestest.Request) []rulestest.Request {
		i := slices.IndexFunc(requests, func(r rulestest.Request) bool { return isOf(r, "app") })
		id := requests[i].Input["container_id"].(string)
		raw, err := json.Marshal(requests)
		if err != nil {
			t.Fatal(err)
		}
		var out []rulestest.Request
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(raw), id, to(id))), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// before puts a request before the first of a kind.
func before(kind string, r rulestest.Request) func(*testing.T, []rulestest.Request) []rulestest.Request {
	return func(t *testing.T, requests []rulestest.Request) []rulestest.Request {
		out := copied(t, requests)
		i := slices.IndexFunc(out, func(r rulestest.Request) bool { return r.Kind == kind })
		return slices.Insert(out, i, r)
	}
}

// appFirst moves the creation of the app before that of its init container.
func appFirst(t *testing.T, requests []rulestest.Request) []rulestest.Request {
	out := copied(t, requests)
	app := slices.IndexFunc(out, func(r rulestest.Request) bool { return isOf(r, "app") })
	create := out[app]
	out = slices.Delete(out, app, app+1)
	return slices.Insert(out, slices.IndexFunc(out, func(r rulestest.Request) bool { return isOf(r, "setup") }), create)
}
