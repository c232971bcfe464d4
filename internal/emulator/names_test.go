// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"portcullis/internal/emulator/recordings"
)

// names are the names of containers by their ids, "<>" being the sandbox.
type names map[string]string

// learn notes the ids of the containers, which files of them may come before.
func learn(requests []recordings.Request) names {
	n := names{}
	for _, r := range requests {
		if a := r.Annotations(); a != nil {
			name, _ := a["io.kubernetes.cri.container-name"].(string)
			n[r.Input["container_id"].(string)] = "<" + name + ">"
		}
	}
	return n
}

var id = regexp.MustCompile(`[0-9a-f]{64}`)

// random is what a cluster draws at random, beside ids.
var random = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uuid>"},
	{regexp.MustCompile(`\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]+`), "<time>"},
	{regexp.MustCompile(`>-[0-9a-f]{16}-`), ">-<random>-"},
	{regexp.MustCompile(`/sandbox-[0-9a-f]{8}-`), "/sandbox-<random>-"},
	{regexp.MustCompile(`-<random>-[0-9a-f]{8}"`), `-<random>-<random>"`},
	{regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`), "kube-api-access-<random>"},
}

func (n names) replace(text string) string {
	text = id.ReplaceAllStringFunc(text, func(id string) string {
		if name, ok := n[id]; ok {
			return name
		}
		return "<id>"
	})
	for _, r := range random {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return text
}

// normal is a request without what differs between any two pods, and what it is about.
func (n names) normal(r recordings.Request) (text, key string) {
	input := clone(r.Input)
	key = r.Kind
	switch r.Kind {
	case "CreateContainerRequest":
		name, _ := r.Annotations()["io.kubernetes.cri.container-name"].(string)
		key += " " + name
		tolerateCreate(input)
	case "ExecProcessRequest":
		process := input["process"].(map[string]any)
		process["Env"] = sorted(process["Env"])
		key += " " + strings.Join(texts(process["Args"]), " ")
	case "CopyFileRequest":
		at := n.replace(input["path"].(string))
		key += " " + at[strings.LastIndex(at, ">-")+1:]
		tolerateCopy(input)
	}
	raw, err := json.MarshalIndent(input, "", " ")
	if err != nil {
		panic(err) // it came from JSON
	}
	return r.Kind + "\n" + n.replace(string(raw)), key
}

// tolerateCreate takes the order out of what comes in a new one each time: the
// kubelet's variables, and of runtime-rs capabilities and the keys of the metadata.
func tolerateCreate(input map[string]any) {
	process := input["OCI"].(map[string]any)["Process"].(map[string]any)
	process["Env"] = sorted(process["Env"])
	capabilities := process["Capabilities"].(map[string]any)
	for name, list := range capabilities {
		if names := texts(list); len(names) > 0 && !strings.HasPrefix(names[0], "CAP_") {
			capabilities[name] = sorted(list)
		}
	}
	if input["exec_id"] != "" {
		return // the Go shim sorts
	}
	for _, s := range input["storages"].([]any) {
		options := s.(map[string]any)["driver_options"].([]any)
		for i, o := range options {
			options[i] = metadata(o.(string))
		}
	}
}

// tolerateCopy takes out what is not known of files: the contents of the node's own, of tokens and the certificate authority, and
// the length of a link to a name with a time.
func tolerateCopy(input map[string]any) {
	at := input["path"].(string)
	delete(input, "data_size")
	if input["file_type"] != "Regular" {
		delete(input, "data_sha256")
		delete(input, "file_size")
		return
	}
	if base := path.Base(at); base == "ca.crt" || base == "token" {
		delete(input, "file_size")
		delete(input, "data_sha256")
	}
	for _, part := range []string{"-log/", "-dir/", "-hp/", "-file", "-hostfile"} {
		if strings.Contains(at, part) {
			delete(input, "data_sha256")
		}
	}
	const hostNetwork = 97 // the node's /etc/hosts with the kubelet's heading
	if input["file_size"] == float64(hostNetwork) && strings.HasSuffix(at, "-hosts") {
		delete(input, "data_sha256")
	}
}

// index finds requests by their normal text, and one text by what it is about.
func index(requests []recordings.Request) (byText map[string]bool, byKey map[string]string) {
	byText, byKey = map[string]bool{}, map[string]string{}
	names := learn(requests)
	for _, r := range requests {
		text, key := names.normal(r)
		byText[text], byKey[key] = true, text
	}
	return byText, byKey
}

func clone(v map[string]any) map[string]any {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it came from JSON
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	return out
}

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, e := range list {
		out = append(out, e.(string))
	}
	return out
}

func sorted(v any) []string {
	out := texts(v)
	slices.Sort(out)
	return out
}

// metadata is what an option of an image pull says, without the order of its keys.
func metadata(option string) any {
	var v map[string]any
	_, text, _ := strings.Cut(option, "=")
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return option
	}
	return v
}
