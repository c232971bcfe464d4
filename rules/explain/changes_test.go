// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// change is one change of an allowed request, and what has to be said of it.
type change struct {
	name      string
	container string // whose CreateContainerRequest; "web" if empty
	at        string // path to set, dots between keys, numbers for items; empty: several fields
	to        any    // value; a func(any) any changes the one that is there
	check     string
	path      string
	wanted    string // in Words; "" for not compared
	got       string
}

func remove(i int) func(any) any {
	return func(v any) any {
		l := v.([]any)
		return append(append([]any{}, l[:i]...), l[i+1:]...)
	}
}

func add(item any) func(any) any {
	return func(v any) any { return append(append([]any{}, v.([]any)...), item) }
}

const ann = "OCI.Annotations."

var changes = []change{
	{name: "argument", at: "OCI.Process.Args.1", to: "--listen=:22", check: "args", path: "OCI.Process.Args[1]", wanted: "--listen=:8080", got: "--listen=:22"},
	{name: "further argument", at: "OCI.Process.Args", to: add("--debug"), check: "args", path: "OCI.Process.Args", wanted: `["/bin/web","--listen=:8080","--log=json"]`, got: `["/bin/web","--listen=:8080","--log=json","--debug"]`},
	{name: "program", container: "migrate", at: "OCI.Process.Args.0", to: "/bin/sh", check: "args", path: "OCI.Process.Args[0]", wanted: "/bin/migrate", got: "/bin/sh"},
	{name: "program of the sandbox", container: "$sandbox", at: "OCI.Process.Args.0", to: "/bin/sh", check: "args", path: "OCI.Process.Args[0]", wanted: "/pause", got: "/bin/sh"},
	{name: "value of a variable", at: "OCI.Process.Env", to: env("LOG_LEVEL", "debug"), check: "env", path: "OCI.Process.Env[LOG_LEVEL]", wanted: "(hidden, 4 characters)", got: "(hidden, 5 characters)"},
	{name: "unknown variable", at: "OCI.Process.Env", to: add("LD_PRELOAD=/evil.so"), check: "env", path: "OCI.Process.Env[LD_PRELOAD]", wanted: "no such variable", got: "(hidden, 8 characters)"},
	{name: "missing variable", at: "OCI.Process.Env", to: env("DB_PASSWORD", ""), check: "env", path: "OCI.Process.Env[DB_PASSWORD]", wanted: "(hidden, 21 characters)", got: "missing"},
	{name: "variable twice", at: "OCI.Process.Env", to: add("LOG_LEVEL=info"), check: "env", path: "OCI.Process.Env[LOG_LEVEL]", wanted: "once", got: "twice"},
	{name: "variable from a field", at: "OCI.Process.Env", to: env("POD_NAME", "other"), check: "env", path: "OCI.Process.Env[POD_NAME]", wanted: "shop-bbbbbbbb-bbbbb", got: "other"},
	{name: "variable with a pattern", at: "OCI.Process.Env", to: env("POD_IP", "evil"), check: "env", path: "OCI.Process.Env[POD_IP]", wanted: "what matches ^[0-9.]+$", got: "(hidden, 4 characters)"},
	{name: "variable of metrics", container: "metrics", at: "OCI.Process.Env", to: add("HTTP_PROXY=http://x"), check: "env", path: "OCI.Process.Env[HTTP_PROXY]", wanted: "no such variable", got: "(hidden, 8 characters)"},
	{name: "image", at: ann + "io.kubernetes.cri.image-name", to: "registry.example/other:1", check: "image", path: "OCI.Annotations[io.kubernetes.cri.image-name]", wanted: "registry.example/shop/web@sha256:0303030303030303030303030303030303030303030303030303030303030303", got: "registry.example/other:1"},
	{name: "source of the image", at: "storages.0.source", to: "registry.example/other:1", check: "image", path: "storages[image_guest_pull].source", wanted: "registry.example/shop/web@sha256:0303030303030303030303030303030303030303030303030303030303030303", got: "registry.example/other:1"},
	{name: "tag of metrics", container: "metrics", at: ann + "io.kubernetes.cri.image-name", to: "registry.example/metrics-agent:2.5", check: "image", path: "OCI.Annotations[io.kubernetes.cri.image-name]", wanted: "registry.example/metrics-agent:2.4", got: "registry.example/metrics-agent:2.5"},
	{name: "working directory", at: "OCI.Process.Cwd", to: "/tmp", check: "process", path: "OCI.Process.Cwd", wanted: "/", got: "/tmp"},
	{name: "user", at: "OCI.Process.User.UID", to: 0, check: "process", path: "OCI.Process.User.UID", wanted: "1000", got: "0"},
	{name: "group", at: "OCI.Process.User.GID", to: 0, check: "process", path: "OCI.Process.User.GID", wanted: "1000", got: "0"},
	{name: "further group", at: "OCI.Process.User.AdditionalGids", to: add(0), check: "process", path: "OCI.Process.User.AdditionalGids", wanted: "[1000,2000]", got: "[1000,2000,0]"},
	{name: "user of metrics", container: "metrics", at: "OCI.Process.User.UID", to: 0, check: "process", path: "OCI.Process.User.UID", wanted: "65534", got: "0"},
	{name: "new privileges", at: "OCI.Process.NoNewPrivileges", to: false, check: "process", path: "OCI.Process.NoNewPrivileges", wanted: "true", got: "false"},
	{name: "terminal", at: "OCI.Process.Terminal", to: true, check: "process", path: "OCI.Process.Terminal", wanted: "false", got: "true"},
	{name: "apparmor", at: "OCI.Process.ApparmorProfile", to: "unconfined", check: "process", path: "OCI.Process.ApparmorProfile", wanted: `one of "", cri-containerd.apparmor.d`, got: "unconfined"},
	{name: "limits", at: "OCI.Process.Rlimits", to: []any{map[string]any{"Type": "RLIMIT_CORE", "Hard": 1, "Soft": 1}}, check: "plain", path: "OCI.Process.Rlimits", wanted: "[]", got: `[{"Hard":1,"Soft":1,"Type":"RLIMIT_CORE"}]`},
	{name: "capability", at: "OCI.Process.Capabilities.Effective", to: add("CAP_SYS_ADMIN"), check: "capabilities", path: "OCI.Process.Capabilities.Effective", wanted: "without CAP_SYS_ADMIN", got: "with CAP_SYS_ADMIN"},
	{name: "capability taken", container: "migrate", at: "OCI.Process.Capabilities.Bounding", to: remove(0), check: "capabilities", path: "OCI.Process.Capabilities.Bounding", wanted: "with CAP_CHOWN", got: "without CAP_CHOWN"},
	{name: "writable root", at: "OCI.Root.Readonly", to: false, check: "id", path: "OCI.Root.Readonly", wanted: "true", got: "false"},
	{name: "root path", at: "OCI.Root.Path", to: "/", check: "id", path: "OCI.Root.Path", wanted: "/run/kata-containers/7765620000000000000000000000000000000000000000000000000000000000/rootfs", got: "/"},
	{name: "container id", at: "container_id", to: "evil", check: "id", path: "container_id", wanted: "7765620000000000000000000000000000000000000000000000000000000000", got: "evil"},
	{name: "hooks", at: "OCI.Hooks", to: map[string]any{"Prestart": []any{}}, check: "plain", path: "OCI.Hooks", wanted: "nothing", got: `{"Prestart":[]}`},
	{name: "mount missing", at: "OCI.Mounts", to: mount("/data", nil), check: "mounts", path: "OCI.Mounts[/data]", wanted: "the block storage of volume data", got: "missing"},
	{name: "mount added", at: "OCI.Mounts", to: add(map[string]any{"destination": "/host", "source": "/", "type_": "bind", "options": []any{"rbind"}}), check: "mounts", path: "OCI.Mounts[/host]", wanted: "no such mount", got: "/"},
	{name: "mount source", at: "OCI.Mounts", to: mount("/tmp", map[string]any{"source": "/run/other"}), check: "mounts", path: "OCI.Mounts[/tmp].source", wanted: "/run/kata-containers/sandbox/ephemeral/tmp", got: "/run/other"},
	{name: "mount options", at: "OCI.Mounts", to: mount("/etc/shop", map[string]any{"options": []any{"rbind", "rprivate", "rw"}}), check: "mounts", path: "OCI.Mounts[/etc/shop].options", wanted: `["rbind","rprivate","ro"]`, got: `["rbind","rprivate","rw"]`},
	{name: "mount type", at: "OCI.Mounts", to: mount("/etc/shop", map[string]any{"type_": "nfs"}), check: "mounts", path: "OCI.Mounts[/etc/shop].type_", wanted: "bind", got: "nfs"},
	{name: "masked path", at: "OCI.Linux.MaskedPaths", to: remove(0), check: "paths", wanted: "masked", got: "missing", path: "OCI.Linux.MaskedPaths[/proc/acpi]"},
	{name: "sysctl", at: "OCI.Linux.Sysctl." + "net\x00core\x00somaxconn", to: "1", check: "sysctl", path: "OCI.Linux.Sysctl[net.core.somaxconn]", wanted: "1024", got: "1"},
	{name: "annotation", at: ann + "example\x00com/team", to: "other", check: "annotations", path: "OCI.Annotations[example.com/team]", wanted: "shop", got: "other"},
	{name: "pod name", at: ann + "io.kubernetes.cri.sandbox-name", to: "evil", check: "identity", path: "OCI.Annotations[io.kubernetes.cri.sandbox-name]", wanted: "^shop-[0-9a-f]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$", got: "evil"},
	{name: "namespace", at: ann + "io.kubernetes.cri.sandbox-namespace", to: "kube-system", check: "identity", path: "OCI.Annotations[io.kubernetes.cri.sandbox-namespace]", wanted: "prod", got: "kube-system"},
	{name: "process namespace", at: "sandbox_pidns", to: true, check: "type", path: "sandbox_pidns", wanted: "false", got: "true"},
	{name: "port", at: "stdin_port", to: 7, check: "stdio", path: "stdin_port", wanted: "0", got: "7"},
	{name: "storage options", at: "storages.2.driver_options", to: []any{}, check: "storages", path: "storages[", wanted: `["encryption_key=ephemeral","create_filesystem"]`, got: "[]"},
	{name: "cpu set", at: "OCI.Linux.Resources.CPU.Cpus", to: "0", check: "linux", path: "OCI.Linux.Resources.CPU.Cpus", wanted: "none", got: "0"},
	{name: "device", at: "devices", to: []any{map[string]any{"id": "", "type_": "blk", "vm_path": "/dev/vdb", "container_path": "/dev/x", "options": []any{}}}, check: "devices", path: "devices[/dev/x]", wanted: "no such device", got: "blk"},
	{name: "unknown container", at: ann + "io.kubernetes.cri.container-name", to: "webx", check: "name", path: "OCI.Annotations[io.kubernetes.cri.container-name]", wanted: "one of $sandbox, metrics, migrate, web", got: "webx"},
	{name: "value of the same length", at: "OCI.Process.Env", to: env("LOG_LEVEL", "warn"), check: "env", path: "OCI.Process.Env[LOG_LEVEL]", wanted: "(hidden, 4 characters)", got: "(hidden, 4 other characters)"},
	{name: "digest to tag", at: ann + "io.kubernetes.cri.image-name", to: "registry.example/shop/web:1", check: "image", path: "OCI.Annotations[io.kubernetes.cri.image-name]", wanted: "registry.example/shop/web@sha256:0303030303030303030303030303030303030303030303030303030303030303", got: "registry.example/shop/web:1"},
	{name: "no pull", at: "storages", to: remove(0), check: "image", path: "storages[image_guest_pull]", wanted: "one, of registry.example/shop/web@sha256:0303030303030303030303030303030303030303030303030303030303030303", got: "missing"},
	{name: "place of the image", at: "storages.0.mount_point", to: "/run/other", check: "image", path: "storages[image_guest_pull].mount_point", wanted: "/run/kata-containers/7765620000000000000000000000000000000000000000000000000000000000/rootfs", got: "/run/other"},
	{name: "user by name", at: "OCI.Process.User.Username", to: "root", check: "process", path: "OCI.Process.User.Username", wanted: `""`, got: "root"},
	{name: "group taken", at: "OCI.Process.User.AdditionalGids", to: remove(1), check: "process", path: "OCI.Process.User.AdditionalGids", wanted: "[1000,2000]", got: "[1000]"},
	{name: "OCI version", at: "OCI.Version", to: "9.9.9", check: "process", path: "OCI.Version", wanted: "one of 1.1.0, 1.2.0, 1.2.1, 1.3.0, 1.0.2-dev", got: "9.9.9"},
	{name: "seccomp", at: "OCI.Linux.Seccomp", to: map[string]any{"DefaultAction": "SCMP_ACT_ALLOW"}, check: "plain", path: "OCI.Linux.Seccomp", wanted: "nothing", got: `{"DefaultAction":"SCMP_ACT_ALLOW"}`},
	{name: "SELinux label", at: "OCI.Process.SelinuxLabel", to: "a:b:c", check: "plain", path: "OCI.Process.SelinuxLabel", wanted: `""`, got: "a:b:c"},
	{name: "exec id", at: "exec_id", to: "other", check: "id", path: "exec_id", wanted: `one of "", 7765620000000000000000000000000000000000000000000000000000000000`, got: "other"},
	{name: "mount twice", at: "OCI.Mounts", to: again("/tmp"), check: "mounts", path: "OCI.Mounts[/tmp]", wanted: "once", got: "twice"},
	{name: "mount of the runtime missing", at: "OCI.Mounts", to: mount("/etc/hosts", nil), check: "mounts", path: "OCI.Mounts[/etc/hosts]", wanted: "/run/kata-containers/shared/containers/<container id>-<16 random>-hosts", got: "missing"},
	{name: "shared mount source", at: "OCI.Mounts", to: mount("/etc/shop", map[string]any{"source": "/etc"}), check: "mounts", path: "OCI.Mounts[/etc/shop].source", wanted: "/run/kata-containers/shared/containers/<container id>-<16 random>-config", got: "/etc"},
	{name: "unmasked path more", at: "OCI.Linux.MaskedPaths", to: add("/bin"), check: "paths", path: "OCI.Linux.MaskedPaths[/bin]", wanted: "no such path", got: "present"},
	{name: "read-only path taken", at: "OCI.Linux.ReadonlyPaths", to: remove(0), check: "paths", path: "OCI.Linux.ReadonlyPaths[", wanted: "read-only", got: "missing"},
	{name: "sysctl added", at: "OCI.Linux.Sysctl", to: map[string]any{"net.core.somaxconn": "1024", "kernel.msgmax": "1"}, check: "sysctl", path: "OCI.Linux.Sysctl[kernel.msgmax]", wanted: "no such sysctl", got: "1"},
	{name: "sysctl taken", at: "OCI.Linux.Sysctl", to: map[string]any{}, check: "sysctl", path: "OCI.Linux.Sysctl[net.core.somaxconn]", wanted: "1024", got: "missing"},
	{name: "annotation taken", at: "OCI.Annotations", to: without("example.com/team"), check: "annotations", path: "OCI.Annotations[example.com/team]", wanted: "shop", got: "missing"},
	{name: "annotation added", at: "OCI.Annotations", to: with("example.com/other", "x"), check: "annotations", path: "OCI.Annotations[example.com/other]", wanted: "no such annotation", got: "x"},
	{name: "namespace of the network twice", at: "OCI.Linux.Namespaces", to: add(map[string]any{"Type": "pid", "Path": ""}), check: "namespaces", path: "OCI.Linux.Namespaces[pid]", wanted: "no such namespace", got: "present"},
	{name: "namespace taken", at: "OCI.Linux.Namespaces", to: remove(0), check: "namespaces", path: "OCI.Linux.Namespaces[ipc]", wanted: "a namespace of its own", got: "missing"},
	{name: "namespace of another process", at: "OCI.Linux.Namespaces.0.Path", to: "/proc/1/ns/ipc", check: "namespaces", path: "OCI.Linux.Namespaces[ipc].Path", wanted: `""`, got: "/proc/1/ns/ipc"},
	{name: "output port", at: "stdout_port", to: 7, check: "stdio", path: "stdout_port", wanted: "0", got: "7"},
	{name: "storage missing", at: "storages", to: remove(2), check: "storages", path: "storages", wanted: "a block device with ext4", got: "missing"},
	{name: "storage added", at: "storages", to: add(map[string]any{"driver": "local", "driver_options": []any{}, "source": "x", "fstype": "", "options": []any{}, "mount_point": "/x", "fs_group": nil, "shared": false}), check: "storages", path: "storages[/x]", wanted: "no such storage", got: "local x"},
	{name: "device node", at: "OCI.Linux.Devices", to: []any{map[string]any{"Path": "/dev/kmsg", "Type": "c"}}, check: "linux", path: "OCI.Linux.Devices", wanted: "[]", got: `["/dev/kmsg"]`},
	{name: "control group", at: "OCI.Linux.CgroupsPath", to: "/../x", check: "linux", path: "OCI.Linux.CgroupsPath", wanted: "/path/id or slice:prefix:id of letters, digits and /:._-, no ..", got: "/../x"},
	{name: "host name", at: "OCI.Hostname", to: "evil", check: "identity", path: "OCI.Hostname", wanted: `one of "", shop-bbbbbbbb-bbbbb`, got: "evil"},
	{name: "uid of the pod", at: ann + "io.kubernetes.cri.sandbox-uid", to: "../x", check: "identity", path: "OCI.Annotations[io.kubernetes.cri.sandbox-uid]", wanted: "a uid, or nothing", got: "../x"},
	{name: "bundle", at: ann + "io.katacontainers.pkg.oci.bundle_path", to: "/evil", check: "identity", path: "OCI.Annotations[io.katacontainers.pkg.oci.bundle_path]", wanted: "/run/containerd/io.containerd.runtime.v2.task/k8s.io/7765620000000000000000000000000000000000000000000000000000000000", got: "/evil"},
}

// env sets a variable's value, or takes the variable out.
func env(name, value string) func(any) any {
	return func(v any) any {
		out := []any{}
		for _, entry := range v.([]any) {
			switch {
			case !strings.HasPrefix(entry.(string), name+"="):
				out = append(out, entry)
			case value != "":
				out = append(out, name+"="+value)
			}
		}
		return out
	}
}

// mount changes fields of a mount, or takes it out.
func mount(destination string, fields map[string]any) func(any) any {
	return func(v any) any {
		out := []any{}
		for _, m := range v.([]any) {
			if m := m.(map[string]any); m["destination"] == destination {
				if fields == nil {
					continue
				}
				for key, value := range fields {
					m[key] = value
				}
			}
			out = append(out, m)
		}
		return out
	}
}

// apply changes a copy of a request.
func (c change) apply(tb testing.TB, request map[string]any) map[string]any {
	tb.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		tb.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		tb.Fatal(err)
	}
	if fields, ok := c.to.(map[string]any); ok && c.at == "" {
		maps.Copy(tree, fields)
		return tree
	}
	keys := strings.Split(c.at, ".")
	if rest, ok := strings.CutPrefix(c.at, ann); ok {
		keys = []string{"OCI", "Annotations", rest}
	}
	set(tb, tree, keys, c.to)
	return tree
}

func set(tb testing.TB, v any, keys []string, to any) {
	tb.Helper()
	key := strings.ReplaceAll(keys[0], "\x00", ".")
	value := func(old any) any {
		if f, ok := to.(func(any) any); ok {
			return f(old)
		}
		return to
	}
	var i int
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v[key]; !ok {
			tb.Fatalf("no %q in the request", key)
		}
		if len(keys) == 1 {
			v[key] = value(v[key])
			return
		}
		set(tb, v[key], keys[1:], to)
	case []any:
		if _, err := fmt.Sscan(key, &i); err != nil || i >= len(v) {
			tb.Fatalf("no item %q", key)
		}
		if len(keys) == 1 {
			v[i] = value(v[i])
			return
		}
		set(tb, v[i], keys[1:], to)
	default:
		tb.Fatalf("nothing at %q", key)
	}
}

// again mounts at a destination a second time.
func again(destination string) func(any) any {
	return func(v any) any {
		out := v.([]any)
		for _, m := range v.([]any) {
			if m.(map[string]any)["destination"] == destination {
				out = append(out, m)
			}
		}
		return out
	}
}

// with sets a key of an object, without takes it out.
func with(key string, value any) func(any) any {
	return func(v any) any {
		v.(map[string]any)[key] = value
		return v
	}
}

func without(key string) func(any) any {
	return func(v any) any {
		delete(v.(map[string]any), key)
		return v
	}
}
