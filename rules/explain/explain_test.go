package explain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
	"portcullis/rules/rulestest"
)

// change is one change of an allowed request, and what has to be said of it.
type change struct {
	name      string
	container string // whose CreateContainerRequest; "web" if empty
	at        string // path to set, dots between keys, numbers for items
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
	{name: "further argument", at: "OCI.Process.Args", to: add("--debug"), check: "args", path: "OCI.Process.Args"},
	{name: "program", container: "migrate", at: "OCI.Process.Args.0", to: "/bin/sh", check: "args", path: "OCI.Process.Args[0]", wanted: "/bin/migrate", got: "/bin/sh"},
	{name: "program of the sandbox", container: "$sandbox", at: "OCI.Process.Args.0", to: "/bin/sh", check: "args", path: "OCI.Process.Args[0]", wanted: "/pause", got: "/bin/sh"},
	{name: "value of a variable", at: "OCI.Process.Env", to: env("LOG_LEVEL", "debug"), check: "env", path: "OCI.Process.Env[LOG_LEVEL]", wanted: "(hidden, 4 characters)", got: "(hidden, 5 characters)"},
	{name: "unknown variable", at: "OCI.Process.Env", to: add("LD_PRELOAD=/evil.so"), check: "env", path: "OCI.Process.Env[LD_PRELOAD]", wanted: "no such variable", got: "present"},
	{name: "missing variable", at: "OCI.Process.Env", to: env("DB_PASSWORD", ""), check: "env", path: "OCI.Process.Env[DB_PASSWORD]", wanted: "present", got: "missing"},
	{name: "variable twice", at: "OCI.Process.Env", to: add("LOG_LEVEL=info"), check: "env", path: "OCI.Process.Env[LOG_LEVEL]", wanted: "once", got: "twice"},
	{name: "variable from a field", at: "OCI.Process.Env", to: env("POD_NAME", "other"), check: "env", path: "OCI.Process.Env[POD_NAME]"},
	{name: "variable with a pattern", at: "OCI.Process.Env", to: env("POD_IP", "evil"), check: "env", path: "OCI.Process.Env[POD_IP]"},
	{name: "variable of metrics", container: "metrics", at: "OCI.Process.Env", to: add("HTTP_PROXY=http://x"), check: "env", path: "OCI.Process.Env[HTTP_PROXY]", wanted: "no such variable", got: "present"},
	{name: "image", at: ann + "io.kubernetes.cri.image-name", to: "registry.example/other:1", check: "image", path: "OCI.Annotations[io.kubernetes.cri.image-name]", got: "registry.example/other:1"},
	{name: "source of the image", at: "storages.0.source", to: "registry.example/other:1", check: "image", path: "storages[image_guest_pull].source", got: "registry.example/other:1"},
	{name: "tag of metrics", container: "metrics", at: ann + "io.kubernetes.cri.image-name", to: "registry.example/metrics-agent:2.5", check: "image", path: "OCI.Annotations[io.kubernetes.cri.image-name]", wanted: "registry.example/metrics-agent:2.4"},
	{name: "working directory", at: "OCI.Process.Cwd", to: "/tmp", check: "process", path: "OCI.Process.Cwd", wanted: "/", got: "/tmp"},
	{name: "user", at: "OCI.Process.User.UID", to: 0, check: "process", path: "OCI.Process.User.UID", wanted: "1000", got: "0"},
	{name: "group", at: "OCI.Process.User.GID", to: 0, check: "process", path: "OCI.Process.User.GID", wanted: "1000", got: "0"},
	{name: "further group", at: "OCI.Process.User.AdditionalGids", to: add(0), check: "process", path: "OCI.Process.User.AdditionalGids", wanted: "[1000,2000]"},
	{name: "user of metrics", container: "metrics", at: "OCI.Process.User.UID", to: 0, check: "process", path: "OCI.Process.User.UID", wanted: "65534", got: "0"},
	{name: "new privileges", at: "OCI.Process.NoNewPrivileges", to: false, check: "process", path: "OCI.Process.NoNewPrivileges", wanted: "true", got: "false"},
	{name: "terminal", at: "OCI.Process.Terminal", to: true, check: "process", path: "OCI.Process.Terminal", wanted: "false", got: "true"},
	{name: "apparmor", at: "OCI.Process.ApparmorProfile", to: "unconfined", check: "process", path: "OCI.Process.ApparmorProfile", got: "unconfined"},
	{name: "limits", at: "OCI.Process.Rlimits", to: []any{map[string]any{"Type": "RLIMIT_CORE", "Hard": 1, "Soft": 1}}, check: "plain", path: "OCI.Process.Rlimits", wanted: "[]"},
	{name: "capability", at: "OCI.Process.Capabilities.Effective", to: add("CAP_SYS_ADMIN"), check: "capabilities", path: "OCI.Process.Capabilities.Effective", wanted: "without CAP_SYS_ADMIN", got: "with CAP_SYS_ADMIN"},
	{name: "capability taken", container: "migrate", at: "OCI.Process.Capabilities.Bounding", to: remove(0), check: "capabilities", path: "OCI.Process.Capabilities.Bounding"},
	{name: "writable root", at: "OCI.Root.Readonly", to: false, check: "id", path: "OCI.Root.Readonly", wanted: "true", got: "false"},
	{name: "root path", at: "OCI.Root.Path", to: "/", check: "id", path: "OCI.Root.Path", got: "/"},
	{name: "container id", at: "container_id", to: "evil", check: "id", path: "container_id", got: "evil"},
	{name: "hooks", at: "OCI.Hooks", to: map[string]any{"Prestart": []any{}}, check: "plain", path: "OCI.Hooks", wanted: "nothing"},
	{name: "mount missing", at: "OCI.Mounts", to: mount("/data", nil), check: "mounts", path: "OCI.Mounts[/data]", wanted: "the block storage of volume data", got: "missing"},
	{name: "mount added", at: "OCI.Mounts", to: add(map[string]any{"destination": "/host", "source": "/", "type_": "bind", "options": []any{"rbind"}}), check: "mounts", path: "OCI.Mounts[/host]", wanted: "no such mount", got: "/"},
	{name: "mount source", at: "OCI.Mounts", to: mount("/tmp", map[string]any{"source": "/run/other"}), check: "mounts", path: "OCI.Mounts[/tmp].source", wanted: "/run/kata-containers/sandbox/ephemeral/tmp", got: "/run/other"},
	{name: "mount options", at: "OCI.Mounts", to: mount("/etc/shop", map[string]any{"options": []any{"rbind", "rprivate", "rw"}}), check: "mounts", path: "OCI.Mounts[/etc/shop].options"},
	{name: "mount type", at: "OCI.Mounts", to: mount("/etc/shop", map[string]any{"type_": "nfs"}), check: "mounts", path: "OCI.Mounts[/etc/shop].type_", wanted: "bind", got: "nfs"},
	{name: "masked path", at: "OCI.Linux.MaskedPaths", to: remove(0), check: "paths", got: "missing"},
	{name: "sysctl", at: "OCI.Linux.Sysctl." + "net\x00core\x00somaxconn", to: "1", check: "sysctl", path: "OCI.Linux.Sysctl[net.core.somaxconn]", wanted: "1024", got: "1"},
	{name: "annotation", at: ann + "example\x00com/team", to: "other", check: "annotations", path: "OCI.Annotations[example.com/team]", wanted: "shop", got: "other"},
	{name: "pod name", at: ann + "io.kubernetes.cri.sandbox-name", to: "evil", check: "identity", path: "OCI.Annotations[io.kubernetes.cri.sandbox-name]", got: "evil"},
	{name: "namespace", at: ann + "io.kubernetes.cri.sandbox-namespace", to: "kube-system", check: "identity", path: "OCI.Annotations[io.kubernetes.cri.sandbox-namespace]", wanted: "prod", got: "kube-system"},
	{name: "process namespace", at: "sandbox_pidns", to: true, check: "type", path: "sandbox_pidns", wanted: "false", got: "true"},
	{name: "port", at: "stdin_port", to: 7, check: "stdio", path: "stdin_port", wanted: "0", got: "7"},
	{name: "storage options", at: "storages.2.driver_options", to: []any{}, check: "storages", path: "storages[", got: "[]"},
	{name: "cpu set", at: "OCI.Linux.Resources.CPU.Cpus", to: "0", check: "linux", path: "OCI.Linux.Resources.CPU.Cpus", wanted: `""`, got: "0"},
	{name: "device", at: "devices", to: []any{map[string]any{"id": "", "type_": "blk", "vm_path": "/dev/vdb", "container_path": "/dev/x", "options": []any{}}}, check: "devices"},
	{name: "unknown container", at: ann + "io.kubernetes.cri.container-name", to: "webx", check: "name", path: "OCI.Annotations[io.kubernetes.cri.container-name]", got: "webx"},
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

func explained(tb testing.TB, e *explain.Explainer, kind string, request, state map[string]any) *explain.Explanation {
	tb.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		tb.Fatal(err)
	}
	pstate, err := json.Marshal(map[string]any{"pstate": state})
	if err != nil {
		tb.Fatal(err)
	}
	x, err := e.Explain(context.Background(), explain.Question{Kind: kind, Input: raw, State: pstate})
	if err != nil {
		tb.Fatal(err)
	}
	x.Hide()
	return x
}

func fullText(tb testing.TB, p *policydata.Policy) []byte {
	tb.Helper()
	full, err := p.Full(rules.Text())
	if err != nil {
		tb.Fatal(err)
	}
	return full
}

func TestEachChangeIsNamed(t *testing.T) {
	if len(changes) < 40 {
		t.Fatalf("only %d changes", len(changes))
	}
	p := shop(t)
	compact, err := p.Compact(rules.Text())
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{"full": fullText(t, p), "compact": compact}
	emulator := rulestest.Emulator{Policy: p, Pod: rulestest.DefaultPod(p)}
	for form, text := range forms {
		e, err := explain.New(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			t.Run(form+"/"+c.name, func(t *testing.T) {
				name := c.container
				if name == "" {
					name = "web"
				}
				request := emulator.CreateContainer(name).Input
				if x := explained(t, e, "CreateContainerRequest", request, nil); len(x.Findings) > 0 {
					t.Fatalf("the request as it was: %+v", x.Findings)
				}
				c.judge(t, name, explained(t, e, "CreateContainerRequest", c.apply(t, request), nil))
			})
		}
	}
}

func (c change) judge(t *testing.T, container string, x *explain.Explanation) {
	t.Helper()
	var out strings.Builder
	if err := x.Write(&out, "CreateContainerRequest", explain.Style{}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines > 3 {
		t.Errorf("%d lines", lines)
	}
	t.Logf("\n%s", &out)
	if len(x.Findings) == 0 {
		t.Fatal("no finding")
	}
	f := x.Findings[0]
	if x.Container != container {
		t.Errorf("container %q, want %q", x.Container, container)
	}
	if f.Check != c.check {
		t.Errorf("check %q, want %q", f.Check, c.check)
	}
	if !strings.HasPrefix(f.Path, c.path) {
		t.Errorf("path %q, want %q", f.Path, c.path)
	}
	if w := explain.Words(f.Wanted); c.wanted != "" && w != c.wanted {
		t.Errorf("wanted %s, want %s", w, c.wanted)
	}
	if g := explain.Words(f.Got); c.got != "" && g != c.got {
		t.Errorf("got %s, want %s", g, c.got)
	}
	if x.Change == "" {
		t.Error("no word on what to change")
	}
	for _, secret := range []string{"correct-horse-battery", "debug"} {
		if c.check == "env" && strings.Contains(out.String(), secret) {
			t.Errorf("the text holds the value %q", secret)
		}
	}
}
