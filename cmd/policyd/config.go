// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/engine/gate"
	"portcullis/engine/rest"
	"portcullis/internal/bounded"
	"portcullis/measure"
)

// config is /etc/portcullis/config.toml. Every key has a default, and an unknown one is an error.
type config struct {
	Gate    gateConfig    `toml:"gate"`
	Policy  policyConfig  `toml:"policy"`
	Binding bindingConfig `toml:"binding"`
	Measure measureConfig `toml:"measure"`
	Log     logConfig     `toml:"log"`

	stateless bool // keep nothing for a restart
	restFD    int  // file descriptor of the REST port that the process before this one holds; 0: none
}

type gateConfig struct {
	Listen     []string  `toml:"listen"`
	Agent      string    `toml:"agent"`
	REST       string    `toml:"rest"`
	VsockPeers []uint32  `toml:"vsock_peers"`
	Allow      []string  `toml:"allow"` // see gate.CheckAllow
	TLS        tlsConfig `toml:"tls"`
}

type policyConfig struct {
	Default  string `toml:"default"`   // file; empty: the built-in that denies all but SetPolicy
	DebugLog string `toml:"debug_log"` // file; empty: none
}

type bindingConfig struct {
	Mode            string     `toml:"mode"`
	Binding         string     `toml:"binding"`
	Backend         string     `toml:"backend"`
	Alg             string     `toml:"alg"`
	Initdata        string     `toml:"initdata"`
	AllowDebugGuest bool       `toml:"allow_debug_guest"`
	PolicyUpdate    string     `toml:"policy_update"`
	VTPM            vtpmConfig `toml:"vtpm"`
}

type vtpmConfig struct {
	Device            string `toml:"device"`
	PCR               int    `toml:"pcr"`
	Trust             string `toml:"trust"`
	ExpectPreextended bool   `toml:"expect_preextended"`
}

type logConfig struct {
	Level  string `toml:"level"`
	Events string `toml:"events"`
}

// maxConfig is the largest configuration file, in bytes.
const maxConfig = 64 << 10

func defaultConfig() config {
	return config{
		Gate: gateConfig{
			Listen:     []string{"vsock://-1:1024"},
			Agent:      "unix:///run/portcullis/agent.sock",
			VsockPeers: []uint32{2},
		},
		Policy: policyConfig{Default: "/etc/portcullis/default-policy.rego"},
		Binding: bindingConfig{
			Mode: "auto", Binding: "auto", Backend: "auto", Alg: "sha256", Initdata: "auto", PolicyUpdate: "never",
			VTPM: vtpmConfig{Device: "/dev/tpmrm0", PCR: 8},
		},
		Measure: measureConfig{Pod: "off", PodPCR: 14},
		Log:     logConfig{Level: "info", Events: "/run/portcullis/measure.jsonseq"},
	}
}

// readConfig reads the file at path over the defaults.
func readConfig(path string) (config, error) {
	text, err := bounded.ReadFile(path, maxConfig)
	if err != nil {
		return config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := parseConfig(text)
	if err != nil {
		return config{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// parseConfig reads TOML over the defaults. Keys must match exactly: the library folds case, and two spellings of one key
// would let the later one win.
func parseConfig(text []byte) (config, error) {
	c := defaultConfig()
	md, err := toml.NewDecoder(bytes.NewReader(text)).Decode(&c)
	if err != nil {
		var bad toml.ParseError
		if errors.As(err, &bad) {
			return config{}, fmt.Errorf("line %d: %s", bad.Position.Line, bad.Message)
		}
		return config{}, err
	}
	for _, key := range md.Keys() {
		if !slices.Contains(configKeys, key.String()) {
			return config{}, fmt.Errorf("unknown key %q", key.String())
		}
	}
	return c, c.validate()
}

// configKeys are the keys that exist, in their only spelling.
var configKeys = []string{
	"gate", "gate.listen", "gate.agent", "gate.rest", "gate.vsock_peers", "gate.allow",
	"gate.tls", "gate.tls.certificate", "gate.tls.key", "gate.tls.client_ca", "gate.tls.forwarder",
	"policy", "policy.default", "policy.debug_log",
	"binding", "binding.mode", "binding.binding", "binding.backend", "binding.alg", "binding.initdata",
	"binding.allow_debug_guest", "binding.policy_update",
	"binding.vtpm", "binding.vtpm.device", "binding.vtpm.pcr", "binding.vtpm.trust", "binding.vtpm.expect_preextended",
	"measure", "measure.pod", "measure.pod_pcr", "measure.tcg2",
	"log", "log.level", "log.events",
}

// validate checks the values that are words or addresses.
func (c *config) validate() error {
	words := []struct {
		key, value string
		allowed    []string
	}{
		{"binding.mode", c.Binding.Mode, []string{"required", "auto", "off"}},
		{"binding.binding", c.Binding.Binding, []string{"auto", "policy", "initdata"}},
		{"binding.backend", c.Binding.Backend, []string{"auto", "snp", "tdx", "vtpm"}},
		{"binding.alg", c.Binding.Alg, []string{"sha256", "sha384", "sha512"}},
		{"binding.policy_update", c.Binding.PolicyUpdate, []string{"never", "extend", "narrow"}},
		{"binding.vtpm.trust", c.Binding.VTPM.Trust, []string{"", "azure-paravisor", "svsm", "asserted"}},
		{"measure.pod", c.Measure.Pod, []string{"off", "pcr"}},
		{"log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}},
	}
	for _, w := range words {
		if !slices.Contains(w.allowed, w.value) {
			return fmt.Errorf("%s = %q: want one of %q", w.key, w.value, w.allowed)
		}
	}
	if err := c.Binding.VTPM.validate(); err != nil {
		return err
	}
	if c.Binding.Backend == "vtpm" && c.Binding.Alg != "sha256" {
		return fmt.Errorf("binding.alg = %q: a vTPM takes sha256 only", c.Binding.Alg)
	}
	if i := c.Binding.Initdata; i != "auto" && i != "off" && !strings.HasPrefix(i, "/") {
		return fmt.Errorf("binding.initdata = %q: want auto, off or an absolute path", i)
	}
	if err := c.validateMeasure(); err != nil {
		return err
	}
	if t := c.Measure.TCG2; t != "" && !filepath.IsAbs(t) {
		return fmt.Errorf("measure.tcg2 = %q: want an absolute path", t)
	}
	if !filepath.IsAbs(c.Log.Events) {
		return fmt.Errorf("log.events = %q: want an absolute path", c.Log.Events)
	}
	return c.Gate.validate()
}

// validate checks what is listened on, and what is let through.
func (g gateConfig) validate() error {
	if err := gate.CheckAllow(g.Allow); err != nil {
		return fmt.Errorf("gate.allow: %w", err)
	}
	if r := g.REST; r != "" {
		if _, err := rest.ParseAddress(r); err != nil {
			return fmt.Errorf("gate.rest: %w", err)
		}
	}
	if err := g.validateAddresses(); err != nil {
		return err
	}
	if len(g.Listen) == 0 && g.REST == "" {
		return errors.New("gate.listen is empty and gate.rest is not set: there is nothing to serve")
	}
	return nil
}

// validateAddresses checks that TCP is listened on under TLS alone, and spoken without it to the loopback alone.
func (g gateConfig) validateAddresses() error {
	for _, l := range g.Listen {
		a, err := gate.ParseAddress(l)
		if err != nil {
			return err
		}
		if a.Host != "" && !a.TLS {
			return fmt.Errorf("gate.listen has %s: want tls:// with certificates in [gate.tls]", a)
		}
		if a.TLS {
			if err := g.TLS.validate(); err != nil {
				return err
			}
		}
	}
	a, err := gate.ParseAddress(g.Agent)
	if err == nil && a.TLS {
		err = fmt.Errorf("gate.agent is %s: want unix:///path, vsock://CID:PORT or tcp://127.0.0.1:PORT", a)
	}
	return err
}

func (v vtpmConfig) validate() error {
	if v.PCR < 0 || v.PCR > math.MaxInt32 {
		return fmt.Errorf("binding.vtpm.pcr = %d: there is no such register; use 8", v.PCR)
	}
	if err := measure.CheckPCR(uint32(v.PCR)); err != nil {
		return fmt.Errorf("binding.vtpm.pcr = %d: %w", v.PCR, err)
	}
	if !strings.HasPrefix(v.Device, "/") && !strings.HasPrefix(v.Device, "unix:///") {
		return fmt.Errorf("binding.vtpm.device = %q: want a device file or unix:///path", v.Device)
	}
	return nil
}

// tighten applies the kernel command line, which the host can write: it may only make the configuration stricter.
func (c *config) tighten(cmdline string) error {
	for _, word := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "portcullis.mode":
			if value != "required" {
				return fmt.Errorf("kernel command line: %s=%s: only portcullis.mode=required is taken", key, printable(value))
			}
			c.Binding.Mode = "required"
		case "portcullis.debug_log":
			if value != "off" {
				return fmt.Errorf("kernel command line: %s=%s: only portcullis.debug_log=off is taken", key, printable(value))
			}
			c.Policy.DebugLog = ""
		}
	}
	return nil
}

// printable shortens and quotes text that the host chose.
func printable(s string) string { return fmt.Sprintf("%.40q", s) }

// runDir holds the event log, the journal and the status socket: /run/portcullis. It is never below /run/kata-containers,
// which the agent removes.
func (c *config) runDir() string { return filepath.Dir(c.Log.Events) }

func (c *config) level() slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(c.Log.Level)) // validate has accepted it
	return l
}
