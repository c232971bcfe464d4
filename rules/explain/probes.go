package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// probes find the place that a failed check of our rules is about. They repeat
// no decision: they are asked only for a check that failed, and where they see
// nothing, the rules' own finding stands. By entry point and check.
var probes = map[string]func(*ours) []Finding{
	createKind + " type":         probeType,
	createKind + " plain":        probePlain,
	createKind + " id":           probeID,
	createKind + " process":      probeProcess,
	createKind + " args":         probeArgs,
	createKind + " capabilities": probeCapabilities,
	createKind + " linux":        probeLinux,
	createKind + " paths":        probePaths,
	createKind + " sysctl":       probeSysctl,
	createKind + " stdio":        probeStdio,
	createKind + " instance":     probeInstance,
	createKind + " order":        probeOrder,
	createKind + " namespaces":   probeNamespaces,
	createKind + " annotations":  probeAnnotations,
	createKind + " devices":      probeDevices,
	createKind + " image":        probeImage,
	createKind + " identity":     probeIdentity,
	createKind + " pod":          probePod,
	createKind + " storages":     probeStorages,
	createKind + " mounts":       probeMounts,
	createKind + " env":          func(o *ours) []Finding { return o.probeEnv("OCI.Process.Env", at(o.input, "OCI", "Process", "Env")) },
	execKind + " process":        probeExecProcess,
	execKind + " stdio":          probeExecStdio,
	execKind + " env":            func(o *ours) []Finding { return o.probeEnv("process.Env", at(o.input, "process", "Env")) },
	execKind + " command":        probeExecArgs,
	sandboxKind + " plain":       probeSandboxPlain,
	sandboxKind + " hostname":    probeSandboxHostname,
	sandboxKind + " storages":    func(o *ours) []Finding { return o.storages(o.policy.Sandbox.Storages) },
}

// expect lists the places of the request that have another value than wanted.
type expectation struct {
	path   string
	wanted any
}

func (o *ours) expect(list []expectation) []Finding {
	var out []Finding
	for _, e := range list {
		if got := at(o.input, strings.Split(e.path, ".")...); !same(e.wanted, got) {
			out = append(out, Finding{Path: e.path, Wanted: e.wanted, Got: got})
		}
	}
	return out
}

func (o *ours) annotation(key string) string { return text(at(o.input, "OCI", "Annotations", key)) }

// annotated is a finding about an annotation unless it has the wanted value.
func (o *ours) annotated(key string, wanted string) []Finding {
	if got := o.annotation(key); got != wanted {
		return []Finding{{Path: annotationPath(key), Wanted: wanted, Got: at(o.input, "OCI", "Annotations", key)}}
	}
	return nil
}

func probeType(o *ours) []Finding {
	return slices.Concat(
		o.annotated("io.kubernetes.cri.container-type", string(o.container.Type)),
		o.annotated("io.katacontainers.pkg.oci.container_type", "pod_"+string(o.container.Type)),
		o.expect([]expectation{{"sandbox_pidns", o.container.PIDNS}}))
}

func probePlain(o *ours) []Finding {
	none := []any{}
	return o.expect([]expectation{
		{"string_user", nil}, {"OCI.Hooks", nil}, {"OCI.Solaris", nil}, {"OCI.Windows", nil}, {"OCI.Process.SelinuxLabel", ""},
		{"OCI.Linux.IntelRdt", nil}, {"OCI.Linux.MountLabel", ""}, {"OCI.Linux.RootfsPropagation", ""}, {"OCI.Linux.Seccomp", nil},
		{"OCI.Linux.Resources.BlockIO", nil}, {"OCI.Linux.Resources.Network", nil}, {"OCI.Linux.Resources.Pids", nil},
		{"shared_mounts", none}, {"OCI.Process.Rlimits", none}, {"OCI.Linux.UIDMappings", none}, {"OCI.Linux.GIDMappings", none},
		{"OCI.Linux.Resources.Devices", none},
	})
}

// rootID is the container id in the request's root path, "" if it has none.
func (o *ours) rootID() string {
	before, after, _ := strings.Cut(o.policy.Common.RootPath, "$(container-id)")
	path := text(at(o.input, "OCI", "Root", "Path"))
	id, ok := strings.CutPrefix(path, before)
	id, end := strings.CutSuffix(id, after)
	if !ok || !end || strings.Contains(id, "/") {
		return ""
	}
	return id
}

// probeID tells which of the container's ids stands alone: the bundle has it too.
func probeID(o *ours) []Finding {
	id, root := text(at(o.input, "container_id")), o.rootID()
	bundle := strings.ReplaceAll(o.policy.Common.BundlePath, "$(container-id)", id)
	var out []Finding
	switch {
	case root != id && root != "" && o.annotation("io.katacontainers.pkg.oci.bundle_path") != bundle:
		out = append(out, Finding{Path: "container_id", Wanted: root, Got: id})
	case root != id:
		out = append(out, Finding{Path: "OCI.Root.Path", Wanted: strings.ReplaceAll(o.policy.Common.RootPath, "$(container-id)", id),
			Got: at(o.input, "OCI", "Root", "Path")})
	}
	if exec := text(at(o.input, "exec_id")); exec != "" && exec != id && len(out) == 0 {
		out = append(out, Finding{Path: "exec_id", Wanted: id, Got: exec})
	}
	return append(out, o.expect([]expectation{{"OCI.Root.Readonly", o.container.ReadonlyRoot}})...)
}

func probeProcess(o *ours) []Finding {
	out := o.expect([]expectation{
		{"OCI.Process.Terminal", o.container.Terminal}, {"OCI.Process.Cwd", o.container.Cwd},
		{"OCI.Process.NoNewPrivileges", o.container.NoNewPrivs}})
	out = append(out, o.user("OCI.Process.User", at(o.input, "OCI", "Process", "User"))...)
	if version := text(at(o.input, "OCI", "Version")); !slices.Contains(o.policy.Common.OCIVersions, version) {
		out = append(out, Finding{Path: "OCI.Version", Wanted: oneOf(o.policy.Common.OCIVersions), Got: version})
	}
	if profile := text(at(o.input, "OCI", "Process", "ApparmorProfile")); !slices.Contains(o.policy.Common.AppArmor, profile) {
		out = append(out, Finding{Path: "OCI.Process.ApparmorProfile", Wanted: oneOf(o.policy.Common.AppArmor), Got: profile})
	}
	if !o.container.Terminal {
		out = append(out, o.expect([]expectation{{"OCI.Process.ConsoleSize", nil}})...)
	}
	return out
}

func (o *ours) user(path string, got any) []Finding {
	var out []Finding
	want := o.container.User
	for _, f := range []Finding{{Path: ".UID", Wanted: want.UID}, {Path: ".GID", Wanted: want.GID}, {Path: ".Username", Wanted: want.Username}} {
		if value := at(got, f.Path[1:]); !same(f.Wanted, value) {
			out = append(out, Finding{Path: path + f.Path, Wanted: f.Wanted, Got: value})
		}
	}
	groups := []string{}
	for _, gid := range list(at(got, "AdditionalGids")) {
		groups = append(groups, fmt.Sprint(normal(gid)))
	}
	wanted := []string{}
	for _, gid := range want.AdditionalGids {
		wanted = append(wanted, strconv.Itoa(int(gid)))
	}
	if slices.Sort(groups); !slices.Equal(groups, slices.Sorted(slices.Values(wanted))) {
		out = append(out, Finding{Path: path + ".AdditionalGids", Wanted: want.AdditionalGids, Got: at(got, "AdditionalGids")})
	}
	return out
}

func probeArgs(o *ours) []Finding {
	got := texts(at(o.input, "OCI", "Process", "Args"))
	if len(got) != len(o.container.Args) {
		return []Finding{{Path: "OCI.Process.Args", Wanted: o.container.Args, Got: got}}
	}
	var out []Finding
	for i, arg := range got {
		wanted := o.container.Args[i]
		if match, ok := o.container.ArgMatches[strconv.Itoa(i)]; ok {
			wanted = o.fill(match.Template) + match.Pattern
			if ok, err := regexp.MatchString(match.Pattern, arg); match.Pattern != "" && ok && err == nil {
				continue
			}
		}
		if arg != wanted {
			out = append(out, Finding{Path: fmt.Sprintf("OCI.Process.Args[%d]", i), Wanted: wanted, Got: arg})
		}
	}
	return out
}

// fill is a template with what is known of the pod.
func (o *ours) fill(template string) string {
	pod := at(o.pstate, "pod")
	value := func(key string) string {
		if pod != nil {
			return text(at(pod, key))
		}
		return o.annotation("io.kubernetes.cri.sandbox-" + key)
	}
	return strings.NewReplacer("$(sandbox-name)", value("name"), "$(sandbox-namespace)", value("namespace"), "$(sandbox-uid)", value("uid")).Replace(template)
}

func probeCapabilities(o *ours) []Finding {
	want := o.policy.Common.Capabilities[o.container.Capabilities]
	var out []Finding
	for _, set := range []struct {
		name  string
		names []string
	}{{"Ambient", want.Ambient}, {"Bounding", want.Bounding}, {"Effective", want.Effective}, {"Inheritable", want.Inheritable}, {"Permitted", want.Permitted}} {
		path := "OCI.Process.Capabilities." + set.name
		got := texts(at(o.input, "OCI", "Process", "Capabilities", set.name))
		more, fewer := without(got, set.names), without(set.names, got)
		switch {
		case len(more) > 0:
			out = append(out, Finding{Path: path, Wanted: Phrase("without " + strings.Join(more, ", ")), Got: Phrase("with " + strings.Join(more, ", "))})
		case len(fewer) > 0:
			out = append(out, Finding{Path: path, Wanted: Phrase("with " + strings.Join(fewer, ", ")), Got: Phrase("without " + strings.Join(fewer, ", "))})
		case len(got) != len(set.names):
			out = append(out, Finding{Path: path, Wanted: set.names, Got: got})
		}
	}
	return out
}

func probeLinux(o *ours) []Finding {
	var out []Finding
	if at(o.input, "OCI", "Linux", "Resources", "CPU") != nil {
		out = o.expect([]expectation{
			{"OCI.Linux.Resources.CPU.Cpus", ""}, {"OCI.Linux.Resources.CPU.Mems", ""},
			{"OCI.Linux.Resources.CPU.RealtimePeriod", 0}, {"OCI.Linux.Resources.CPU.RealtimeRuntime", 0}})
	}
	path := text(at(o.input, "OCI", "Linux", "CgroupsPath"))
	if ok, err := regexp.MatchString(`^((/|[0-9A-Za-z_.-]+:)[0-9A-Za-z_/:.-]*)?$`, path); err != nil || !ok || strings.Contains(path, "..") {
		out = append(out, Finding{Path: "OCI.Linux.CgroupsPath", Wanted: Phrase("/path or slice:prefix:id of letters, digits and /:._-, no .."), Got: path})
	}
	devices := []string{}
	for _, d := range list(at(o.input, "OCI", "Linux", "Devices")) {
		devices = append(devices, text(at(d, "Path")))
		if kind := text(at(d, "Type")); kind != "b" && kind != "c" {
			out = append(out, Finding{Path: "OCI.Linux.Devices[" + text(at(d, "Path")) + "].Type", Wanted: Phrase("b or c"), Got: kind})
		}
	}
	if len(without(devices, o.container.Devices)) > 0 || len(without(o.container.Devices, devices)) > 0 || len(devices) != len(o.container.Devices) {
		out = append(out, Finding{Path: "OCI.Linux.Devices", Wanted: o.container.Devices, Got: devices})
	}
	return out
}

func probePaths(o *ours) []Finding {
	want := o.policy.Common.Paths[o.container.Paths]
	masked, readonly := texts(at(o.input, "OCI", "Linux", "MaskedPaths")), texts(at(o.input, "OCI", "Linux", "ReadonlyPaths"))
	var out []Finding
	add := func(field string, wanted, got Phrase, paths []string) {
		for _, path := range paths {
			out = append(out, Finding{Path: "OCI.Linux." + field + "[" + path + "]", Wanted: wanted, Got: got})
		}
	}
	add("MaskedPaths", "masked", missing, without(want.Masked, masked))
	add("ReadonlyPaths", "read-only", missing, without(without(want.Readonly, readonly), masked))
	add("MaskedPaths", once, twice, repeated(masked))
	add("ReadonlyPaths", once, twice, repeated(readonly))
	known := slices.Concat(want.Masked, want.Readonly)
	add("MaskedPaths", "no such path", present, without(masked, known))
	add("ReadonlyPaths", "no such path", present, without(readonly, known))
	return out
}

// repeated are the items that a list has more than once.
func repeated(items []string) []string {
	var out []string
	for i, item := range items {
		if slices.Contains(items[:i], item) && !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out
}

func probeSysctl(o *ours) []Finding {
	got := object(at(o.input, "OCI", "Linux", "Sysctl"))
	want := maps.Clone(o.container.Sysctl.Optional)
	if want == nil {
		want = map[string]string{}
	}
	maps.Copy(want, o.container.Sysctl.Fixed)
	var out []Finding
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if wanted, ok := want[key]; !ok {
			out = append(out, Finding{Path: "OCI.Linux.Sysctl[" + key + "]", Wanted: Phrase("no such sysctl"), Got: got[key]})
		} else if wanted != text(got[key]) {
			out = append(out, Finding{Path: "OCI.Linux.Sysctl[" + key + "]", Wanted: wanted, Got: got[key]})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.container.Sysctl.Fixed)) {
		if _, has := got[key]; !has {
			out = append(out, Finding{Path: "OCI.Linux.Sysctl[" + key + "]", Wanted: want[key], Got: missing})
		}
	}
	return out
}

// probeNamespaces compares namespaces by their type. Which network it is is for the pod to say.
func probeNamespaces(o *ours) []Finding {
	var out []Finding
	seen := map[string]int{}
	for _, n := range list(at(o.input, "OCI", "Linux", "Namespaces")) {
		kind, path := text(at(n, "Type")), text(at(n, "Path"))
		if kind == "mnt" {
			kind = "mount"
		}
		place := "OCI.Linux.Namespaces[" + kind + "]"
		seen[kind]++
		switch known := slices.Contains(o.container.Namespaces, kind); {
		case seen[kind] == 2:
			out = append(out, Finding{Path: place, Wanted: once, Got: twice})
		case kind == "network", kind == "cgroup":
		case !known:
			out = append(out, Finding{Path: place, Wanted: Phrase("no such namespace"), Got: present})
		case path != "":
			out = append(out, Finding{Path: place + ".Path", Wanted: "", Got: path})
		}
	}
	for _, kind := range o.container.Namespaces {
		if seen[kind] == 0 {
			out = append(out, Finding{Path: "OCI.Linux.Namespaces[" + kind + "]", Wanted: Phrase("a namespace of its own"), Got: missing})
		}
	}
	return out
}

// probeDevices compares the agent's devices by the path they get. Those that are passed through are left to the rules' finding.
func probeDevices(o *ours) []Finding {
	var out []Finding
	var there []string
	for _, d := range list(at(o.input, "devices")) {
		path := text(at(d, "container_path"))
		there = append(there, path)
		if !slices.Contains(o.container.Devices, path) && o.container.VFIO.Count == 0 {
			out = append(out, Finding{Path: "devices[" + path + "]", Wanted: Phrase("no such device"), Got: at(d, "type_")})
		}
	}
	for _, path := range without(o.container.Devices, there) {
		out = append(out, Finding{Path: "devices[" + path + "]", Wanted: Phrase("a block device"), Got: missing})
	}
	return out
}

// ports are the fields that carry a stream past the requests.
func (o *ours) ports(stdin bool) []Finding {
	var wanted []expectation
	if !stdin {
		wanted = append(wanted, expectation{"stdin_port", 0})
	}
	if !o.policy.Requests.ReadStream {
		wanted = append(wanted, expectation{"stdout_port", 0}, expectation{"stderr_port", 0})
	}
	return o.expect(wanted)
}

func probeStdio(o *ours) []Finding { return o.ports(o.container.Stdin) }
