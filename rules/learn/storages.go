// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"encoding/json"
	"regexp"
	"slices"

	"portcullis/internal/strictjson"
	"portcullis/rules/policydata"
)

// sandboxStorages learns how large the guest makes the directories of the pod, and options by which less can be done there.
func sandboxStorages(q *question) (Lesson, bool) {
	if q.id != "" { // of a container
		return Lesson{}, false
	}
	value := []any{}
	for _, wanted := range q.storages {
		i := slices.IndexFunc(q.input.Storages, func(s policydata.Storage) bool { return s.MountPoint == wanted.MountPoint })
		if i < 0 || !resized(q.input.Storages[i], wanted) {
			return Lesson{}, false
		}
		item, ok := asValue(q.input.Storages[i])
		if !ok {
			return Lesson{}, false
		}
		value = append(value, item)
	}
	return Lesson{Key: []string{"sandbox", "storages"}, Value: value, Rank: Exact}, len(q.input.Storages) == len(q.storages)
}

var size = regexp.MustCompile(`^size=[0-9]{1,19}[kmg%]?$`)

// restricting are mount options that only take away.
var restricting = []string{"nodev", "noexec", "nosuid"}

// resized says whether a storage is the wanted one but for its size and further restrictions.
func resized(got, wanted policydata.Storage) bool {
	sized := func(s string) bool { return size.MatchString(s) }
	missing := slices.ContainsFunc(wanted.Options, func(o string) bool { return !sized(o) && !slices.Contains(got.Options, o) })
	foreign := slices.ContainsFunc(got.Options, func(o string) bool {
		return !sized(o) && !slices.Contains(wanted.Options, o) && !slices.Contains(restricting, o)
	})
	got.Options, wanted.Options = nil, nil
	a, errA := json.Marshal(got)
	b, errB := json.Marshal(wanted)
	return !missing && !foreign && errA == nil && errB == nil && string(a) == string(b)
}

// asValue is a storage as settings hold it.
func asValue(s policydata.Storage) (any, bool) {
	raw, err := json.Marshal(s)
	var value map[string]any
	if err != nil || strictjson.Unmarshal(raw, &value) != nil {
		return nil, false
	}
	delete(value, "fs_group") // TOML has no null, and resized has seen that there is none
	return value, true
}

// Kinds of directories for a pod's emptyDirs that the host cannot look into: with a key that only the guest has, and in the guest
// itself.
const (
	emptyEncrypted = "block-encrypted"
	emptyLocal     = "local"
)

// emptyDir learns which of the two this Kata makes of an emptyDir. What the host can read or fill is never learned.
func emptyDir(q *question) (Lesson, bool) {
	encrypted := func(s policydata.Storage) bool { return slices.Contains(s.DriverOptions, "encryption_key=ephemeral") }
	local := func(s policydata.Storage) bool { return s.Driver == "local" }
	lesson := Lesson{Key: []string{"generate", "empty_dir"}, Rank: Looser}
	switch {
	case slices.ContainsFunc(q.storages, encrypted) && slices.ContainsFunc(q.input.Storages, local):
		lesson.Value = emptyLocal
	case slices.ContainsFunc(q.storages, local) && slices.ContainsFunc(q.input.Storages, encrypted):
		lesson.Value = emptyEncrypted
	default:
		return Lesson{}, false
	}
	return lesson, true
}
