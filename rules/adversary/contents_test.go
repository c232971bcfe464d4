// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"maps"
	"path"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// copied is what lies at a path of the guest: a file by its SHA-256, or a link.
type copied struct{ sum, link string }

// copyFile takes in a file, and looks at the volumes of the containers that there are.
func (m *model) copyFile(input object) string {
	at, _ := input["path"].(string)
	if !strings.HasPrefix(at, "/") || slices.Contains(strings.Split(at, "/"), "..") {
		return "file outside the shared directory"
	}
	at = m.resolve(path.Dir(at)) + "/" + path.Base(at)
	switch input["file_type"] {
	case "Regular":
		sum, _ := input["data_sha256"].(string)
		if input["offset"] != 0.0 || input["data_size"] != input["file_size"] {
			sum = "a part"
		}
		m.copied[at] = copied{sum: sum}
	case "Symlink":
		target, _ := input["symlink_target"].(string)
		m.copied[at] = copied{link: target}
	}
	for id, name := range m.live {
		if broken := m.contents(id, name, m.sources[id]); broken != "" {
			return broken
		}
	}
	return ""
}

// resolve follows the links of a path, as far as there are any, and not for ever.
func (m *model) resolve(p string) string {
	for range 40 {
		next := m.follow(p)
		if next == p {
			break
		}
		p = next
	}
	return p
}

// follow replaces the first link of a path.
func (m *model) follow(p string) string {
	at := ""
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for n, part := range parts {
		if link := m.copied[at+"/"+part].link; link != "" {
			return path.Join(append([]string{"/", at, link}, parts[n+1:]...)...)
		}
		at += "/" + part
	}
	return at
}

// contents holds the volumes of a container that the owner knows: what is seen at a key is its file, nothing that is needed is
// missing, and where all is known there is nothing else.
func (m *model) contents(id, name string, sources map[string]string) string {
	m.sources[id] = sources
	for destination, source := range sources {
		mount, ok := m.mounts[name][destination]
		if !ok || mount.Contents == nil {
			continue
		}
		for key, file := range mount.Contents.Files {
			found, ok := m.copied[m.resolve(path.Join(source, key))]
			switch {
			case file.SHA256 == "" || !ok && file.Optional:
			case !ok:
				return "contents of " + destination + "/" + key + " are missing"
			case found.sum != file.SHA256:
				return "contents of " + destination + "/" + key + " differ"
			}
		}
		if strange := m.strange(source, mount.Contents.Files); !mount.Contents.Open && strange != "" {
			return "contents of " + destination + " have " + strange + " as well"
		}
	}
	return ""
}

// strange is a file that is seen below a directory and is none of those known, or nothing.
func (m *model) strange(source string, known map[string]policydata.File) string {
	for _, at := range slices.Sorted(maps.Keys(m.copied)) {
		inner, below := strings.CutPrefix(at, source+"/")
		if !below || strings.HasPrefix(inner, "..") {
			continue
		}
		isKnown := func(key string) bool { return key == inner || strings.HasPrefix(key, inner+"/") }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(known)), isKnown) {
			return inner
		}
	}
	return ""
}

func sourcesOf(input object) map[string]string {
	out := map[string]string{}
	for _, mount := range list(at(input, "OCI", "Mounts")) {
		destination, _ := at(mount, "destination").(string)
		source, _ := at(mount, "source").(string)
		if destination != "" {
			out[destination] = source
		}
	}
	return out
}
