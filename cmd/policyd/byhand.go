// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"portcullis/engine"
	"portcullis/engine/gate"
	"portcullis/rules"
)

// tryConfig is the configuration of a first try outside a guest: everything lies in one folder, which its owner alone may open, and
// nothing is bound. A machine that shows a TEE is refused all the same.
func tryConfig(dir string) (config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return config{}, fmt.Errorf("find %s: %w", dir, err)
	}
	c := defaultConfig()
	c.Gate.Listen = []string{"unix://" + filepath.Join(dir, "gate.sock")}
	c.Gate.Agent = "unix://" + filepath.Join(dir, "agent.sock")
	c.Policy.Default = ""
	c.Policy.DebugLog = filepath.Join(dir, "decisions.jsonl")
	c.Binding.Mode, c.Binding.Initdata = "off", "off"
	c.Log.Level, c.Log.Events = "debug", filepath.Join(dir, "measure.jsonseq")
	return c, nil
}

// checkConfig says whether policyd would start with a configuration, as far as that can be said without starting.
func checkConfig(ctx context.Context, o options, c config, out io.Writer) error {
	for _, address := range append([]string{c.Gate.Agent}, c.Gate.Listen...) {
		a, err := gate.ParseAddress(address)
		if err != nil {
			return err
		}
		if a.TLS {
			files, err := c.Gate.TLS.files()
			if err != nil {
				return err
			}
			if err := files.Check(); err != nil {
				return fmt.Errorf("%s: %w", address, err)
			}
		}
	}
	compiler, err := engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()})
	if err != nil {
		return err
	}
	p, err := defaultPolicy(ctx, compiler, c.Policy.Default)
	if err != nil {
		return err
	}
	from := o.config
	if o.try != "" {
		from = "--try " + o.try
	}
	first := c.Policy.Default
	if first == "" {
		first = "built in"
	}
	fmt.Fprintf(out, "%s: good\nlisten          %s\nagent           %s\nbinding         mode %s, backend %s\ndefault policy  %s, sha256 %x\nevents          %s\n",
		from, strings.Join(c.Gate.Listen, ", "), c.Gate.Agent, c.Binding.Mode, c.Binding.Backend, first, p.Digest(), c.Log.Events)
	if c.Measure.Pod != "off" {
		fmt.Fprintf(out, "record          of the pod's life, where there is a TPM in PCR %d\n", c.Measure.PodPCR)
	}
	if c.Policy.DebugLog != "" {
		fmt.Fprintf(out, "decision log    %s, with the workload's secrets\n", c.Policy.DebugLog)
	}
	return nil
}
