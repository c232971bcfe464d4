// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"portcullis/internal/version"
)

const usage = `policyd decides which requests of the host the kata-agent gets to see.

Usage:
  policyd [flags]

Flags:
  --config F          configuration file (default /etc/portcullis/config.toml)
  --listen ADDR       where the host connects; may be repeated (default vsock://-1:1024)
  --agent ADDR        where the kata-agent listens (default unix:///run/portcullis/agent.sock)
  --rest HOST:PORT    also answer OPA's REST API there, on a loopback address
  --default-policy F  policy that decides until SetPolicy
  --debug-log F       write every request and its decision to F; it holds the workload's secrets
  --log-level L       debug, info, warn or error
  --check-config      say whether the configuration and the default policy are good, and end
  --try DIR           a first try outside a guest: sockets, event log and decision log in DIR, no configuration file,
                      nothing bound to hardware, level debug
  --version           print the version and the modules it is built from
  --help              print this text

ADDR is unix:///path or vsock://CID:PORT; CID -1 listens on all.
Flags win over the configuration file.

Exit codes: 0 stopped by a signal, 2 wrong usage or configuration, 3 cannot serve.
`

// options are the command line.
type options struct {
	config        string
	listen        listenFlag
	agent         string
	rest          string
	defaultPolicy string
	debugLog      string
	logLevel      string
	try           string
	checkConfig   bool
	version       bool
	set           map[string]bool // flags that were given
}

// defaultConfigFile lies in the measured root filesystem.
const defaultConfigFile = "/etc/portcullis/config.toml"

// listenFlag collects repeated --listen flags.
type listenFlag []string

func (l *listenFlag) String() string     { return strings.Join(*l, ",") }
func (l *listenFlag) Set(v string) error { *l = append(*l, v); return nil }

// errHelp asks for the usage text.
var errHelp = errors.New("help wanted")

func parseFlags(args []string) (options, error) {
	o := options{set: map[string]bool{}}
	// A flag set of its own: libraries register flags in the global one.
	fs := flag.NewFlagSet("policyd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "config", defaultConfigFile, "")
	fs.Var(&o.listen, "listen", "")
	fs.StringVar(&o.agent, "agent", "", "")
	fs.StringVar(&o.rest, "rest", "", "")
	fs.StringVar(&o.defaultPolicy, "default-policy", "", "")
	fs.StringVar(&o.debugLog, "debug-log", "", "")
	fs.StringVar(&o.logLevel, "log-level", "", "")
	fs.StringVar(&o.try, "try", "", "")
	fs.BoolVar(&o.checkConfig, "check-config", false, "")
	fs.BoolVar(&o.version, "version", false, "")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, errHelp
	} else if err != nil {
		return o, fmt.Errorf("%w; see policyd --help", err)
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see policyd --help", fs.Arg(0))
	}
	fs.Visit(func(f *flag.Flag) { o.set[f.Name] = true })
	if o.set["try"] && (o.set["config"] || o.try == "") {
		return o, errors.New("--try takes a folder, and no --config beside it; see policyd --help")
	}
	return o, nil
}

// configuration is the file with the flags applied over it.
func (o options) configuration() (config, error) {
	var c config
	var err error
	if o.set["try"] {
		c, err = tryConfig(o.try)
	} else {
		c, err = readConfig(o.config)
	}
	if err != nil {
		return config{}, err
	}
	for name, apply := range map[string]func(){
		"listen":         func() { c.Gate.Listen = o.listen },
		"agent":          func() { c.Gate.Agent = o.agent },
		"rest":           func() { c.Gate.REST = o.rest },
		"default-policy": func() { c.Policy.Default = o.defaultPolicy },
		"debug-log":      func() { c.Policy.DebugLog = o.debugLog },
		"log-level":      func() { c.Log.Level = o.logLevel },
	} {
		if o.set[name] {
			apply()
		}
	}
	return c, c.validate()
}

// versionText lists what the binary is built from.
func versionText() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "policyd " + version.Text()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "policyd %s%s\n", version.Text(), info.GoVersion)
	for _, m := range info.Deps {
		fmt.Fprintf(&b, "  %s %s\n", m.Path, m.Version)
	}
	return b.String()
}
