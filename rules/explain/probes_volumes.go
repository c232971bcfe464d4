package explain

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

const (
	imageKey    = "io.kubernetes.cri.image-name"
	pullOptions = "storages[image_guest_pull].driver_options"
)

func probeImage(o *ours) []Finding {
	want := o.container.Image
	out := o.annotated(imageKey, want.Annotation)
	pulls := 0
	for _, s := range list(at(o.input, "storages")) {
		if text(at(s, "driver")) != "image_guest_pull" {
			continue
		}
		pulls++
		if source := text(at(s, "source")); source != want.Source {
			out = append(out, Finding{Path: "storages[image_guest_pull].source", Wanted: want.Source, Got: source})
		}
		root := text(at(o.input, "OCI", "Root", "Path"))
		if point := text(at(s, "mount_point")); point != root {
			out = append(out, Finding{Path: "storages[image_guest_pull].mount_point", Wanted: root, Got: point})
		}
		for _, f := range []Finding{{Path: "fstype", Wanted: "overlay"}, {Path: "shared", Wanted: false}, {Path: "fs_group"}, {Path: "options", Wanted: []any{}}} {
			if got := at(s, f.Path); !same(f.Wanted, got) {
				out = append(out, Finding{Path: "storages[image_guest_pull]." + f.Path, Wanted: f.Wanted, Got: got})
			}
		}
		if len(out) == 0 {
			out = append(out, o.pullMetadata(list(at(s, "driver_options"))))
		}
	}
	return append(out, pullsFound(want, pulls)...)
}

// pullMetadata tells how what the agent pulls by is not the container's annotations.
func (o *ours) pullMetadata(options []any) Finding {
	f := Finding{Path: pullOptions, Wanted: Phrase("the container's annotations, once"), Got: Phrase("something else")}
	if len(options) != 1 {
		f.Got = Phrase(fmt.Sprintf("%d options", len(options)))
		return f
	}
	said, err := decode([]byte(strings.TrimPrefix(text(options[0]), "image_guest_pull=")))
	if err != nil {
		return f
	}
	metadata, annotations := object(at(said, "metadata")), object(at(o.input, "OCI", "Annotations"))
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if value, has := annotations[key]; !has {
			f.Got = Phrase("more: " + key)
			return f
		} else if !same(value, metadata[key]) {
			f.Got = Phrase("another value of " + key)
			return f
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if _, has := metadata[key]; !has {
			f.Got = Phrase("less: no " + key)
		}
	}
	return f
}

// pullsFound is about how often an image is pulled in the guest: once, or never.
func pullsFound(want policydata.Image, pulls int) []Finding {
	path, often := "storages[image_guest_pull]", Phrase(fmt.Sprintf("%d of them", pulls))
	switch guest := want.From == policydata.GuestPull; {
	case guest && pulls == 0:
		return []Finding{{Path: path, Wanted: Phrase("one, of " + want.Source), Got: missing}}
	case guest && pulls > 1:
		return []Finding{{Path: path, Wanted: Phrase("one, of " + want.Source), Got: often}}
	case !guest && pulls > 0:
		return []Finding{{Path: path, Wanted: Phrase("none: the image does not come from a registry in the guest"), Got: often}}
	}
	return nil
}

func probeMounts(o *ours) []Finding {
	wanted := maps.Clone(o.container.Mounts)
	if wanted == nil {
		wanted = map[string]policydata.Mount{}
	}
	for _, m := range o.policy.Common.Mounts[o.container.BaseMounts] {
		wanted[m.Destination] = policydata.Mount{From: policydata.MountExact, Options: m.Options, Source: m.Source, Type: m.Type}
	}
	seen := map[string]int{}
	var out []Finding
	for _, m := range list(at(o.input, "OCI", "Mounts")) {
		destination := text(at(m, "destination"))
		path := "OCI.Mounts[" + destination + "]"
		seen[destination]++
		w, known := wanted[destination]
		switch {
		case !known:
			out = append(out, Finding{Path: path, Wanted: Phrase("no such mount"), Got: text(at(m, "source"))})
		case seen[destination] == 2:
			out = append(out, Finding{Path: path, Wanted: once, Got: twice})
		default:
			out = append(out, o.mountDiff(path, w, m)...)
		}
	}
	var absent []Finding
	for _, destination := range slices.Sorted(maps.Keys(wanted)) {
		if w := wanted[destination]; seen[destination] == 0 && !w.MayBeMissing && o.policy.Strict.Mounts != policydata.Optional {
			absent = append(absent, Finding{Path: "OCI.Mounts[" + destination + "]", Wanted: o.sourceWords(w), Got: missing})
		}
	}
	return append(absent, out...)
}

func (o *ours) mountDiff(path string, w policydata.Mount, m any) []Finding {
	var out []Finding
	if kind := text(at(m, "type_")); kind != w.Type {
		out = append(out, Finding{Path: path + ".type_", Wanted: w.Type, Got: kind})
	}
	options := texts(at(m, "options"))
	more, fewer := without(without(options, w.Options), w.ExtraOptions), without(w.Options, options)
	if len(more) > 0 || len(fewer) > 0 {
		out = append(out, Finding{Path: path + ".options", Wanted: w.Options, Got: options})
	}
	source := text(at(m, "source"))
	fits := true
	switch w.From {
	case policydata.MountExact:
		fits = source == w.Source
	case policydata.MountShared:
		fits = o.sharedFits(w.Source, source)
	case policydata.MountStorage:
		fits = slices.ContainsFunc(list(at(o.input, "storages")), func(s any) bool { return text(at(s, "mount_point")) == source })
	}
	if !fits {
		out = append(out, Finding{Path: path + ".source", Wanted: o.sourceWords(w), Got: source})
	}
	return out
}

var sharedTail = regexp.MustCompile(`^[a-z0-9]{16}-`)

func (o *ours) sharedFits(name, source string) bool {
	for _, dir := range o.policy.Common.SharedDirs {
		tail, ok := strings.CutPrefix(source, dir+"/"+o.rootID()+"-")
		if ok && sharedTail.MatchString(tail) && tail[17:] == name {
			return true
		}
	}
	return false
}

// sourceWords says where a mount has to come from.
func (o *ours) sourceWords(w policydata.Mount) any {
	switch w.From {
	case policydata.MountShared:
		dir := "the shared directory"
		if len(o.policy.Common.SharedDirs) > 0 {
			dir = o.policy.Common.SharedDirs[0]
		}
		return Phrase(dir + "/<container id>-<16 random>-" + w.Source)
	case policydata.MountStorage:
		return Phrase("the block storage of volume " + w.Source)
	}
	return w.Source
}

// probeEnv compares the environment by name. Values are the workload's secrets.
func (o *ours) probeEnv(path string, env any) []Finding {
	fixed := map[string]string{}
	for _, entry := range o.container.Env.Fixed {
		name, value, _ := strings.Cut(entry, "=")
		fixed[name] = value
	}
	seen := map[string]int{}
	var out []Finding
	for _, entry := range texts(env) {
		name, value, _ := strings.Cut(entry, "=")
		f := Finding{Path: path + "[" + name + "]", Got: value, Secret: true}
		wanted, isFixed := fixed[name]
		pattern, isPattern := o.envPattern(name)
		template, isTemplate := o.container.Env.Templates[name]
		hash, isHash := o.container.Env.Hashes[name]
		switch seen[name]++; {
		case seen[name] == 2:
			out = append(out, Finding{Path: f.Path, Wanted: once, Got: twice})
		case seen[name] > 2, isFixed && value == wanted, isTemplate && value == o.fill(template), isPattern && matches(pattern, value),
			isHash && fmt.Sprintf("%x", sha256.Sum256([]byte(value))) == hash, !isHash && o.isLink(entry):
		case isFixed:
			f.Wanted = wanted
			out = append(out, f)
		case isTemplate:
			f.Wanted, f.Secret = o.fill(template), false
			out = append(out, f)
		case isPattern:
			out = append(out, Finding{Path: f.Path, Wanted: Phrase("what matches " + pattern), Got: value, Secret: true})
		case isHash:
			out = append(out, Finding{Path: f.Path, Wanted: Phrase("a value with the SHA-256 " + hash), Got: value, Secret: true})
		default:
			f.Wanted = Phrase("no such variable")
			out = append(out, f)
		}
	}
	level := o.policy.Strict.Env
	if o.kind == execKind {
		level = o.policy.Strict.ExecEnv
	}
	if level != policydata.Required {
		return out
	}
	return append(out, o.missingEnv(path, fixed, seen)...)
}

// missingEnv lists the variables that have to be there and are not.
func (o *ours) missingEnv(path string, fixed map[string]string, seen map[string]int) []Finding {
	needed := map[string]Finding{}
	for name, pattern := range o.container.Env.Patterns {
		needed[name] = Finding{Wanted: Phrase("what matches " + pattern)}
	}
	for name, template := range o.container.Env.Templates {
		needed[name] = Finding{Wanted: o.fill(template)}
	}
	for name, hash := range o.container.Env.Hashes {
		needed[name] = Finding{Wanted: Phrase("a value with the SHA-256 " + hash)}
	}
	for name, value := range fixed {
		needed[name] = Finding{Wanted: value, Secret: true}
	}
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if seen[name] == 0 {
			f := needed[name]
			f.Path, f.Got = path+"["+name+"]", missing
			out = append(out, f)
		}
	}
	return out
}

// envPattern is the pattern of a variable's value that the policy has by name.
func (o *ours) envPattern(name string) (string, bool) {
	for _, patterns := range []map[string]string{o.container.Env.Patterns, o.container.Env.Optional, o.policy.Common.Env.Names} {
		if pattern, ok := patterns[name]; ok {
			return pattern, true
		}
	}
	return "", false
}

// isLink says whether a whole entry is one that any container may have.
func (o *ours) isLink(entry string) bool {
	return slices.ContainsFunc(o.policy.Common.Env.Whole, func(pattern string) bool { return matches(pattern, entry) })
}

func matches(pattern, value string) bool {
	ok, err := regexp.MatchString(pattern, value)
	return err == nil && ok
}

func probeExecArgs(o *ours) []Finding {
	args := texts(at(o.input, "process", "Args"))
	allowed := slices.Concat(o.container.Exec, o.policy.Requests.Exec.Commands)
	known := slices.ContainsFunc(allowed, func(argv []string) bool { return slices.Equal(argv, args) })
	if known {
		return o.expect([]expectation{{"process.Terminal", false}})
	}
	return []Finding{{Path: "process.Args", Wanted: allowed, Got: args}}
}

func probeExecProcess(o *ours) []Finding {
	out := o.expect([]expectation{
		{"string_user", nil}, {"process.Capabilities", nil}, {"process.Rlimits", []any{}}, {"process.SelinuxLabel", ""},
		{"process.Cwd", o.container.Cwd}, {"process.NoNewPrivileges", o.container.NoNewPrivs}})
	out = append(out, o.user("process.User", at(o.input, "process", "User"))...)
	if profile := text(at(o.input, "process", "ApparmorProfile")); !slices.Contains(o.policy.Common.AppArmor, profile) {
		out = append(out, Finding{Path: "process.ApparmorProfile", Wanted: oneOf(o.policy.Common.AppArmor), Got: profile})
	}
	return out
}

func probeExecStdio(o *ours) []Finding {
	out := o.ports(o.policy.Requests.Exec.Stdin)
	id := text(at(o.input, "exec_id"))
	if id == text(at(o.input, "container_id")) || !matches(`^[0-9a-z][0-9A-Za-z._-]{0,127}$`, id) {
		out = append(out, Finding{Path: "exec_id", Wanted: Phrase("an id of its own"), Got: id})
	}
	return out
}

// probeSandboxHostname words what the pod's name decides.
func probeSandboxHostname(o *ours) []Finding {
	wanted := any(o.policy.Sandbox.Hostname)
	if wanted == "$(sandbox-name)" {
		wanted = Phrase("the pod's name, " + o.policy.Sandbox.Name)
	}
	return []Finding{{Path: "hostname", Wanted: wanted, Got: at(o.input, "hostname")}}
}

func probeSandboxPlain(o *ours) []Finding {
	return o.expect([]expectation{{"guest_hook_path", ""}, {"kernel_modules", []any{}}, {"sandbox_pidns", o.policy.Sandbox.PIDNS}})
}

func probeStorages(o *ours) []Finding { return o.storages(o.container.Storages) }

// storages compares the request's storages with the policy's, one to one.
func (o *ours) storages(wanted []policydata.Storage) []Finding {
	root := text(at(o.input, "OCI", "Root", "Path"))
	left := slices.Clone(wanted)
	var strangers []map[string]any
	for _, s := range list(at(o.input, "storages")) {
		if text(at(s, "driver")) == "image_guest_pull" {
			continue
		}
		if i := slices.IndexFunc(left, func(w policydata.Storage) bool { return len(o.storageDiff(w, s, root)) == 0 }); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		strangers = append(strangers, object(s))
	}
	if len(left) == 1 && len(strangers) == 1 {
		return o.storageDiff(left[0], strangers[0], root)
	}
	var out []Finding
	for _, s := range strangers {
		out = append(out, Finding{Path: "storages[" + text(s["mount_point"]) + "]", Wanted: Phrase("no such storage"), Got: text(s["driver"]) + " " + text(s["source"])})
	}
	for _, w := range left {
		out = append(out, missingStorage(w, root))
	}
	return out
}

func missingStorage(w policydata.Storage, root string) Finding {
	f := Finding{Path: "storages[" + strings.ReplaceAll(w.MountPoint, "$(root)", root) + "]", Wanted: Phrase(w.Driver + " " + w.Source), Got: missing}
	if strings.Contains(w.MountPoint, "$(") {
		f.Path = "storages"
	}
	if w.Driver == "$(block)" {
		f.Wanted = Phrase("a block device with " + w.FSType)
	}
	return f
}

// blockAddress is how the host names a block device: on a PCI, CCW or SCSI bus.
var blockAddress = regexp.MustCompile(`^(?:[0-9a-f]{2}(?:/[0-9a-f]{2})?|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]|[0-9]+:[0-9]+)$`)

// storageDiff compares a storage with what the policy wants.
func (o *ours) storageDiff(w policydata.Storage, got any, root string) []Finding {
	var out []Finding
	at0 := "storages[" + text(at(got, "mount_point")) + "]"
	field := func(name string, wanted any, placeholder bool) {
		value := at(got, name)
		if !placeholder && !same(wanted, value) {
			out = append(out, Finding{Path: at0 + "." + name, Wanted: wanted, Got: value})
		}
	}
	if w.Driver != "$(block)" {
		field("driver", w.Driver, false)
	} else if driver := at(got, "driver"); driver != "blk" && driver != "scsi" {
		out = append(out, Finding{Path: at0 + ".driver", Wanted: oneOf{"blk", "scsi"}, Got: driver})
	}
	source := text(at(got, "source"))
	field("source", w.Source, w.Source == "$(device)" && blockAddress.MatchString(source))
	field("fstype", w.FSType, false)
	field("shared", w.Shared, false)
	place := strings.ReplaceAll(w.MountPoint, "$(root)", root)
	if w.MountPoint == "$(device)" {
		place = o.policy.Common.StorageDir + "/" + base64.URLEncoding.EncodeToString([]byte(source))
	}
	field("mount_point", place, false)
	var group any
	if w.FSGroup != nil {
		group = map[string]any{"group_change_policy": w.FSGroup.Policy, "group_id": w.FSGroup.GID}
	}
	field("fs_group", group, false)
	for name, wanted := range map[string][]string{"options": w.Options, "driver_options": w.DriverOptions} {
		value := texts(at(got, name))
		if len(list(at(got, name))) != len(value) || !slices.Equal(slices.Sorted(slices.Values(wanted)), slices.Sorted(slices.Values(value))) {
			out = append(out, Finding{Path: at0 + "." + name, Wanted: wanted, Got: at(got, name)})
		}
	}
	return out
}
