// SPDX-License-Identifier: Apache-2.0

// Package settings says what the pods of one platform look like, apart from their manifests: what the container runtime adds, how
// volumes arrive, which requests are allowed beyond the rules' defaults.
//
// Settings are TOML: one documented file per platform, drop-ins over it in the
// order in which they are named. Unknown keys are errors.
package settings

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/rules/policydata"
)

// ErrUnknown is wrapped by Load for a platform or drop-in that does not exist.
var ErrUnknown = errors.New("unknown settings")

//go:embed *.toml dropins/*.toml
var files embed.FS

// DefaultPlatform is the platform of a user who names none.
const DefaultPlatform = "guest-pull"

// Settings is one platform, with its drop-ins merged in.
type Settings struct {
	Annotation Annotation          `json:"annotation"`
	Order      Order               `json:"order"`
	Strict     policydata.Strict   `json:"strict"`
	Common     policydata.Common   `json:"common"`
	Sandbox    Sandbox             `json:"sandbox"`
	Requests   policydata.Requests `json:"requests"`
	Generate   Generate            `json:"generate"`
}

// Annotation names how a policy reaches the guest.
type Annotation string

// Values of Annotation.
const (
	Initdata Annotation = "initdata" // io.katacontainers.config.hypervisor.cc_init_data
	Policy   Annotation = "policy"   // io.katacontainers.config.agent.policy
)

// Order says which pods' containers must start in the order of the manifest.
type Order string

// Values of Order.
const (
	OrderFree     Order = "free"            // of none
	OrderInit     Order = "init-containers" // of those that have init containers
	OrderEnforced Order = "enforced"        // of all
)

// Of is the order of a pod that has init containers, or has none.
func (o Order) Of(initContainers bool) policydata.Order {
	if o == OrderEnforced || o == OrderInit && initContainers {
		return policydata.OrderEnforced
	}
	return policydata.OrderFree
}

// Secrets says what becomes of a variable whose value is a Secret's.
type Secrets string

// Values of Secrets.
const (
	SecretsRefuse  Secrets = "refuse"  // bound by value, in clear; a Secret that was not given is refused
	SecretsHash    Secrets = "hash"    // bound by SHA-256 of the value; the gate compares
	SecretsUnbound Secrets = "unbound" // bound by its name alone where the Secret was not given, else as hash
)

// Sandbox is the part of policydata.Sandbox that is the platform's.
type Sandbox struct {
	Storages []policydata.Storage `json:"storages"`
}

// Generate is what only the generator reads.
type Generate struct {
	ImageFrom              policydata.ImageFrom `json:"image_from"`
	PauseImage             string               `json:"pause_image"`
	PauseArgs              []string             `json:"pause_args"`
	PauseUsers             []policydata.User    `json:"pause_users"` // whom it may run as where the pod does not say; at least one
	EmptyDir               string               `json:"empty_dir"`   // key of Volumes
	NodeImages             bool                 `json:"node_images"` // guest pull, with images unpacked on the node too, which then knows their accounts
	StaticPods             bool                 `json:"static_pods"` // objects of kind Pod are a node's static pods, whose names end in the node's
	HashConfigFiles        bool                 `json:"hash_config_files"`
	Secrets                Secrets              `json:"secrets"`
	SecretHashes           map[string]string    `json:"secret_hashes"` // "[namespace/]name/key" -> SHA-256 of the value, lower-case hex
	PrivilegedCapabilities struct {
		Names []string `json:"names"`
	} `json:"privileged_capabilities"`
	Sandbox   Template          `json:"sandbox"`   // the sandbox container
	Container Template          `json:"container"` // every other
	Volumes   map[string]Volume `json:"volumes"`   // by kind: memory, config, shared, block-encrypted, block-plain
	VFIO      VFIO              `json:"vfio"`
}

// Template is what the runtime adds to a container. Options of Mounts may hold $(rw) and $(privileged-rw).
type Template struct {
	Annotations map[string]string           `json:"annotations"` // key -> pattern of the value
	Sysctl      map[string]string           `json:"sysctl"`      // may be there
	Mounts      map[string]policydata.Mount `json:"mounts"`      // by destination
	// Variables of every such container, by name.
	EnvTemplates map[string]string `json:"env_templates"`
	EnvPatterns  map[string]string `json:"env_patterns"`
}

// Volume is how a kind of volume shows in CreateContainer. Strings may hold $(name) and $(basename).
type Volume struct {
	Mount   policydata.Mount    `json:"mount"`
	Storage *policydata.Storage `json:"storage"` // nil: none
}

// VFIO is how passed-through devices show.
type VFIO struct {
	Resources  []string `json:"resources"` // extended resources that mean a device
	Path       string   `json:"path"`
	Type       string   `json:"type"`
	Annotation string   `json:"annotation"` // pattern
}

// DropIn is a drop-in's text with its name for error messages.
type DropIn struct {
	Name string
	Text []byte
}

// Platforms returns the names of the platforms, sorted.
func Platforms() []string { return names(".") }

// DropIns returns the names of the drop-ins that come with this package, sorted.
func DropIns() []string { return names("dropins") }

// Named returns a drop-in that comes with this package.
func Named(name string) (DropIn, error) {
	if !slices.Contains(DropIns(), name) {
		return DropIn{}, fmt.Errorf("drop-in %q: %w, want one of %s", name, ErrUnknown, strings.Join(DropIns(), ", "))
	}
	text, err := files.ReadFile("dropins/" + name + ".toml")
	return DropIn{Name: name, Text: text}, err
}

// Load returns the settings of a platform with drop-ins merged over it in order. Within the result every pattern is anchored.
func Load(platform string, dropIns ...DropIn) (*Settings, error) {
	tree, err := platformTree(platform)
	if err != nil {
		return nil, err
	}
	for _, dropIn := range dropIns {
		over, err := parse(dropIn)
		if err != nil {
			return nil, err
		}
		tree = merge(tree, over)
		// Here it is known whose fault it is.
		if _, err := decode(tree); err != nil {
			return nil, placed(err, platform, []DropIn{dropIn})
		}
	}
	s, err := decode(tree)
	if err != nil {
		return nil, placed(err, platform, nil)
	}
	if err := s.validate(); err != nil {
		return nil, placed(err, platform, dropIns)
	}
	return s, nil
}

// placed says where the first of the faults is.
func placed(err error, platform string, dropIns []DropIn) error {
	var f *fault
	if !errors.As(err, &f) {
		return fmt.Errorf("read settings %s: %w", at(platform, dropIns, nil), err)
	}
	return fmt.Errorf("read settings %s: %w", at(platform, dropIns, f.path), err)
}

func platformTree(platform string) (map[string]any, error) {
	if !slices.Contains(Platforms(), platform) {
		return nil, fmt.Errorf("platform %q: %w, want one of %s", platform, ErrUnknown, strings.Join(Platforms(), ", "))
	}
	text, err := files.ReadFile(platform + ".toml")
	if err != nil {
		return nil, fmt.Errorf("platform %q: %w", platform, err)
	}
	tree, err := parse(DropIn{Name: platform, Text: text})
	if err != nil {
		return nil, err
	}
	base, ok := tree["based_on"].(string)
	if !ok {
		return tree, nil
	}
	delete(tree, "based_on")
	below, err := platformTree(base)
	if err != nil {
		return nil, err
	}
	return merge(below, tree), nil
}

func parse(d DropIn) (map[string]any, error) {
	var tree map[string]any
	if _, err := toml.Decode(string(d.Text), &tree); err != nil {
		return nil, fmt.Errorf("read settings %s: %w", d.Name, err)
	}
	return tree, nil
}

// removed is the value that takes a key away.
const removed = "$(remove)"

// merge returns below with over's keys: tables merged, all else replaced.
func merge(below, over map[string]any) map[string]any {
	out := make(map[string]any, len(below)+len(over))
	maps.Copy(out, below)
	for key, value := range over {
		table, isTable := value.(map[string]any)
		old, wasTable := out[key].(map[string]any)
		switch {
		case value == removed:
			delete(out, key)
		case isTable && wasTable:
			out[key] = merge(old, table)
		default:
			out[key] = value
		}
	}
	return out
}

// decode goes through JSON, whose names policydata's types carry.
func decode(tree map[string]any) (*Settings, error) {
	raw, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	if f := unknown(tree, reflect.TypeFor[Settings](), nil); f != nil {
		return nil, f
	}
	var s Settings
	err = json.Unmarshal(raw, &s)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return nil, &fault{strings.Split(mismatch.Field, "."), fmt.Sprintf("is a %s, want %s", mismatch.Value, typeWords(mismatch.Type))}
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Settings) validate() error {
	if all := s.wrong(); len(all) > 0 {
		return &all[0]
	}
	p, err := s.Policy()
	if err != nil {
		return err
	}
	p.Sandbox.Name = "^settings$"
	err = p.Validate()
	var f *policydata.Fault
	if errors.As(err, &f) {
		return &fault{pathOf(f), f.Words}
	}
	return err
}

// Policy returns a policy of this platform without containers and without the pod's name. It shares nothing with the settings.
func (s *Settings) Policy() (*policydata.Policy, error) {
	raw, err := json.Marshal(policydata.Policy{
		Version:    policydata.Version,
		Common:     s.Common,
		Containers: map[string]*policydata.Container{},
		Order:      s.Order.Of(false),
		Requests:   s.Requests,
		Sandbox:    policydata.Sandbox{Hostname: policydata.PodHostname, Storages: s.Sandbox.Storages},
		Strict:     s.Strict,
	})
	if err != nil {
		return nil, fmt.Errorf("copy settings: %w", err)
	}
	var p policydata.Policy
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("copy settings: %w", err)
	}
	return &p, nil
}

func names(dir string) []string {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		panic("settings: embedded directory missing: " + dir)
	}
	var out []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(path.Base(entry.Name()), ".toml"); ok {
			out = append(out, name)
		}
	}
	return out
}
