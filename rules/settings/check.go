// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"portcullis/rules"
	"portcullis/rules/policydata"
)

// fault is what is wrong with the value of a key.
type fault struct {
	path  []string
	words string
}

func (f *fault) Error() string { return strings.Join(f.path, ".") + " " + f.words }

// unknown finds the first key of a tree that settings do not have, in order of name.
func unknown(tree map[string]any, t reflect.Type, path []string) *fault {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		here := append(slices.Clone(path), key)
		of, ok := below(t, key)
		if !ok {
			return &fault{here, "is no key" + meant(here, t)}
		}
		if f := unknownIn(tree[key], of, here); f != nil {
			return f
		}
	}
	return nil
}

// unknownIn looks into a value that is a table or a list of them.
func unknownIn(value any, t reflect.Type, path []string) *fault {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := value.(type) {
	case map[string]any:
		if t.Kind() == reflect.Struct || t.Kind() == reflect.Map {
			return unknown(value, t, path)
		}
	case []map[string]any:
		for _, item := range value {
			if t.Kind() == reflect.Slice {
				if f := unknownIn(item, t.Elem(), path); f != nil {
					return f
				}
			}
		}
	case []any:
		for _, item := range value {
			if t.Kind() == reflect.Slice {
				if f := unknownIn(item, t.Elem(), path); f != nil {
					return f
				}
			}
		}
	}
	return nil
}

// below is the type of a key in a table of type t.
func below(t reflect.Type, key string) (reflect.Type, bool) {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		for i := range t.NumField() {
			if keyName(t.Field(i)) == key {
				return t.Field(i).Type, true
			}
		}
	}
	return nil, false
}

// meant suggests a key: one of the same table that is written nearly so, or one of that name elsewhere.
func meant(path []string, t reflect.Type) string {
	if field, ok := ofManifests[strings.Join(path, ".")]; ok {
		return "; genpolicy takes it from the manifest, see " + field
	}
	key, table := path[len(path)-1], path[:len(path)-1]
	var names []string
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			names = append(names, keyName(t.Field(i)))
		}
	}
	if name := nearest(key, names); name != "" {
		return ", do you mean " + strings.Join(append(slices.Clone(table), name), ".") + "?"
	}
	for _, k := range Keys() {
		if k.Path == key || strings.HasSuffix(k.Path, "."+key) {
			return ", do you mean " + k.Path + "?"
		}
	}
	return "; genpolicy settings lists them"
}

// ofManifests are what policies say of the pod and settings do not, with the field of the manifest that does.
var ofManifests = map[string]string{
	"sandbox.hostname":  "spec.hostname (the node's names of static pods have the drop-in static-pods)",
	"sandbox.name":      "metadata.name",
	"sandbox.namespace": "metadata.namespace",
}

// nearest is the word that is at most a third of its letters away, "" if none is.
func nearest(word string, words []string) string {
	best, least := "", len(word)/3+1
	for _, w := range words {
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// wrong finds the values that settings cannot have.
func (s *Settings) wrong() []fault {
	var all []fault
	add := func(path []string, format string, args ...any) {
		all = append(all, fault{path, fmt.Sprintf(format, args...)})
	}
	fewValues(reflect.ValueOf(*s), nil, add)
	listable := rules.Listable()
	for _, name := range s.Requests.Allow {
		if !slices.Contains(listable, name) {
			add([]string{"requests", "allow"}, "%s", notListable(name, listable))
		}
	}
	s.wrongCapabilities(add)
	for _, dir := range append(slices.Clone(s.Common.SharedDirs), s.Common.StorageDir) {
		if !strings.HasPrefix(dir, "/") || strings.HasSuffix(dir, "/") {
			add([]string{"common", "shared_dirs"}, "%q is no absolute path without a slash at its end (this holds for storage_dir too)", dir)
		}
	}
	s.wrongGenerate(add)
	return all
}

func notListable(name string, listable []string) string {
	if near := nearest(name, listable); near != "" {
		return fmt.Sprintf("%q is no request, do you mean %s?", name, near)
	}
	if i := slices.IndexFunc(rules.Entries(), func(e rules.Entry) bool { return e.Request == name }); i >= 0 {
		return fmt.Sprintf("%s cannot be allowed whole: %s", name, rules.Entries()[i].Checks)
	}
	return fmt.Sprintf("%q is no request, want one of %s", name, strings.Join(listable, ", "))
}

func (s *Settings) wrongCapabilities(add func([]string, string, ...any)) {
	known := s.Generate.PrivilegedCapabilities.Names
	check := func(path []string, names []string) {
		for _, name := range names {
			switch near := nearest(name, allCapabilities); {
			case slices.Contains(allCapabilities, name), slices.Contains(known, name) && strings.HasPrefix(name, "CAP_"):
			case near != "":
				add(path, "%q is no capability, do you mean %s?", name, near)
			default:
				add(path, "%q is no capability, which begin with CAP_", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Common.Capabilities)) {
		c := s.Common.Capabilities[name]
		for key, list := range map[string][]string{"Ambient": c.Ambient, "Bounding": c.Bounding, "Effective": c.Effective, "Inheritable": c.Inheritable, "Permitted": c.Permitted} {
			check([]string{"common", "capabilities", name, key}, list)
		}
	}
}

func (s *Settings) wrongGenerate(add func([]string, string, ...any)) {
	if len(s.Generate.PauseUsers) == 0 {
		add([]string{"generate", "pause_users"}, "is empty, and the pause container runs as somebody")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Generate.SecretHashes)) {
		hash := s.Generate.SecretHashes[name]
		if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size || strings.ToLower(hash) != hash {
			add([]string{"generate", "secret_hashes", name}, "has no SHA-256 in lower-case hex")
		}
	}
	if _, ok := s.Generate.Volumes[s.Generate.EmptyDir]; !ok {
		kinds := slices.Sorted(maps.Keys(s.Generate.Volumes))
		add([]string{"generate", "empty_dir"}, "is %q, want one of %s", s.Generate.EmptyDir, strings.Join(kinds, ", "))
	}
}

// fewValues checks the values of types that have few.
func fewValues(v reflect.Value, path []string, add func([]string, string, ...any)) {
	if words, ok := choices[v.Type()]; ok {
		if got := v.String(); !slices.Contains(words, got) {
			near := nearest(got, words)
			if near != "" {
				near = ", do you mean " + near + "?"
			} else {
				near = ", want " + strings.Join(words, ", ")
			}
			add(path, "is %q%s", got, near)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fewValues(v.Elem(), path, add)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if name := keyName(v.Type().Field(i)); name != "" {
				fewValues(v.Field(i), append(slices.Clone(path), name), add)
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			fewValues(v.MapIndex(key), append(slices.Clone(path), key.String()), add)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fewValues(v.Index(i), path, add)
		}
	}
}

// allCapabilities are those of Linux 6.
var allCapabilities = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
	CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
	CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE
	CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN
	CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// pathOf reads the path that a fault of policy_data names, such as common.env.names["A"] or requests.copy_file[2].
func pathOf(f *policydata.Fault) []string {
	name, bracket, _ := strings.Cut(f.Path, "[")
	path := strings.Split(name, ".")
	if key, err := strconv.Unquote(strings.TrimSuffix(bracket, "]")); err == nil {
		path = append(path, key)
	}
	return path
}
