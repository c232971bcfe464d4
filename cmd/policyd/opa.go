// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/version"
)

// program is what the name says that the binary is called by.
func program(name string) func(context.Context, []string, stdio) int {
	if filepath.Base(name) == "opa" {
		return runOPA
	}
	return run
}

const opaUsage = `This is Portcullis' policyd under the name opa: it answers the part of OPA's REST API that kata-agents use.

Usage:
  opa run --server [flags] [FILE]
  opa version

FILE is the policy that decides until another is put; without it, the default policy of the configuration.

Flags, all optional:
  --addr HOST:PORT    loopback address to listen on (default localhost:8181)
  --log-level L       debug, info, warn or error
  --disable-telemetry, --log-format F, --v0-compatible, --skip-version-check
                      taken and without effect

For everything else of OPA's commands see policyctl.
`

// opaOptions are the command line of opa run.
type opaOptions struct {
	addr     string
	logLevel string
	server   bool
	file     string
	portFD   int // of the port, in the process that serves; see holdPort
}

// runOPA is the whole program under the name opa.
func runOPA(ctx context.Context, args []string, std stdio) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "run":
	case "version":
		fmt.Fprintf(std.out, "This is not OPA but Portcullis' policyd under that name. It evaluates with OPA's library, version %s.\n%s",
			version.Version, versionText())
		return exitOK
	case "", "help", "-h", "--help":
		fmt.Fprint(std.out, opaUsage)
		return exitOK
	default:
		fmt.Fprintf(std.err, "opa: %s is not part of Portcullis' stand-in for OPA; see policyctl --help\n", printable(command))
		return exitUsage
	}
	o, err := parseOPAFlags(args[1:])
	if errors.Is(err, errHelp) {
		fmt.Fprint(std.out, opaUsage)
		return exitOK
	}
	var c config
	if err == nil {
		c, err = o.configuration(opaFiles)
	}
	if err == nil {
		err = tightenByKernel(&c)
	}
	if err != nil {
		fmt.Fprintln(std.err, "opa:", err)
		return exitUsage
	}
	logger := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: c.level()}))
	if o.portFD == 0 {
		return holdPort(ctx, c.Gate.REST, args, std, logger)
	}
	c.restFD = o.portFD
	runtime.GOMAXPROCS(1) // agents ask one request at a time: it is answered sooner where no other processor is woken up for it
	if err := serve(ctx, c, thisGuest(), logger); err != nil {
		logger.Error("opa stops", "error", err)
		return exitFail
	}
	return exitOK
}

// parseOPAFlags reads what follows opa run. Flags may come after the file, as OPA takes them.
func parseOPAFlags(args []string) (opaOptions, error) {
	o := opaOptions{addr: "localhost:8181"}
	fs := flag.NewFlagSet("opa run", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, name := range []string{"server", "s"} {
		fs.BoolVar(&o.server, name, false, "")
	}
	for _, name := range []string{"addr", "a"} {
		fs.StringVar(&o.addr, name, o.addr, "")
	}
	for _, name := range []string{"log-level", "l"} {
		fs.StringVar(&o.logLevel, name, "", "")
	}
	for _, ignored := range []string{"disable-telemetry", "v0-compatible", "skip-version-check"} {
		fs.Bool(ignored, false, "")
	}
	fs.String("log-format", "", "")
	fs.IntVar(&o.portFD, portFlag, 0, "")
	var files []string
	for len(args) > 0 {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return o, errHelp
		} else if err != nil {
			return o, fmt.Errorf("%w; see opa --help", err)
		}
		if args = fs.Args(); len(args) > 0 {
			files, args = append(files, args[0]), args[1:]
		}
	}
	switch {
	case !o.server:
		return o, errors.New("only opa run --server is served here; for an evaluation at the terminal see policyctl replay")
	case len(files) > 1:
		return o, fmt.Errorf("one policy file is taken, not %d", len(files))
	case len(files) == 1:
		o.file = files[0]
	}
	return o, nil
}

// guestFiles are the files that opa run looks for when its command line does not say.
type guestFiles struct {
	config   string
	defaults []string // default policies, the first that is there
}

var opaFiles = guestFiles{
	config:   defaultConfigFile,
	defaults: []string{"/etc/portcullis/default-policy.rego", "/etc/kata-opa/default-policy.rego"},
}

// configuration is the guest's own if it has one. Else it is the defaults, and nothing is kept for a restart: an agent that
// starts its sidecar itself does not start it twice, and at a terminal each run starts afresh. A file that is there and
// cannot be used is an error.
func (o opaOptions) configuration(files guestFiles) (config, error) {
	c, err := readConfig(files.config)
	if errors.Is(err, fs.ErrNotExist) {
		c, err = defaultConfig(), nil
		c.stateless = true
		c.Binding.Initdata = "off" // guests of that era have none, and any disk of theirs would be searched for it
		c.Policy.Default = firstExisting(files.defaults)
	}
	if err != nil {
		return config{}, err
	}
	c.Gate.Listen = nil // the agent itself is where the host connects
	c.Gate.REST = o.addr
	if strings.HasPrefix(c.Gate.REST, ":") {
		c.Gate.REST = "localhost" + c.Gate.REST
	}
	if o.file != "" {
		c.Policy.Default = o.file
	}
	if o.logLevel != "" {
		c.Log.Level = strings.ToLower(o.logLevel)
	}
	return c, c.validate()
}

// isSidecar says that there is no gate here: an agent asks by REST.
func (c *config) isSidecar() bool { return len(c.Gate.Listen) == 0 }

// firstExisting returns the first of paths that exists or cannot be examined, "" if none does.
func firstExisting(paths []string) string {
	i := slices.IndexFunc(paths, func(p string) bool {
		_, err := os.Stat(p)
		return !errors.Is(err, fs.ErrNotExist)
	})
	if i < 0 {
		return ""
	}
	return paths[i]
}
