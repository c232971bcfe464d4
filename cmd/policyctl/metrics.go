// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"portcullis/engine/binding"
)

func newMetrics() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print a running policyd's counters for Prometheus",
		Long: `Print, in Prometheus' text format, what the policyd of this guest has decided since it began: requests allowed and denied by
kind, how long decisions took, and what it is bound to. It is read from a socket that only root can open; a textfile collector
or a small exporter in the guest can pass it on. The numbers hold no secrets, and tell the rhythm of the workload.

Exit code 3: policyd cannot be reached.`,
		Example: `  policyctl metrics > /var/lib/node_exporter/portcullis.prom`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readStatus(cmd.Context(), socket)
			if err != nil {
				return fmt.Errorf("read status of policyd: %w", err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), metricsText(s))
			return err
		},
	}
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "`path` of policyd's status socket")
	return cmd
}

// metricsText is a status in Prometheus' text format, version 0.0.4.
func metricsText(s binding.Status) string {
	var b strings.Builder
	family := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	family("portcullis_info", "gauge", "What runs and what vouches for the policy.")
	fmt.Fprintf(&b, "portcullis_info{version=%s,mode=%s,backend=%s,binding=%s,policy_sha256=%s} 1\n",
		label(s.Version), label(s.Mode), label(s.Backend), label(s.Binding), label(s.Policy))
	family("portcullis_state", "gauge", "1 for the state that policyd is in: denied (nothing passes), default, active.")
	for _, state := range []string{binding.StateDenied, binding.StateDefault, binding.StateActive} {
		value := 0
		if s.State == state {
			value = 1
		}
		fmt.Fprintf(&b, "portcullis_state{state=%s} %d\n", label(state), value)
	}
	family("portcullis_activations_total", "counter", "Policies that became active.")
	fmt.Fprintf(&b, "portcullis_activations_total %d\n", s.Generation)
	family("portcullis_unobserved_answers_total", "counter", "Answers of the agent that the policy failed to take note of.")
	fmt.Fprintf(&b, "portcullis_unobserved_answers_total %d\n", s.Unobserved)
	if len(s.Requests) > 0 {
		decisionMetrics(&b, family, s.Requests)
	}
	return b.String()
}

func decisionMetrics(b *strings.Builder, family func(name, kind, help string), requests []binding.RequestCount) {
	family("portcullis_decisions_total", "counter", "Requests that were decided, by kind and decision.")
	for _, r := range requests {
		fmt.Fprintf(b, "portcullis_decisions_total{request=%s,decision=\"allow\"} %d\n", label(r.Request), r.Allowed)
		fmt.Fprintf(b, "portcullis_decisions_total{request=%s,decision=\"deny\"} %d\n", label(r.Request), r.Denied)
	}
	family("portcullis_decision_seconds", "histogram", "How long decisions took, waiting included.")
	for _, r := range requests {
		for i, n := range r.Within {
			if i >= len(binding.Latencies) { // of a newer policyd
				break
			}
			bound := strconv.FormatFloat(binding.Latencies[i].Seconds(), 'g', -1, 64)
			fmt.Fprintf(b, "portcullis_decision_seconds_bucket{request=%s,le=\"%s\"} %d\n", label(r.Request), bound, n)
		}
		fmt.Fprintf(b, "portcullis_decision_seconds_bucket{request=%s,le=\"+Inf\"} %d\n", label(r.Request), r.Allowed+r.Denied)
		fmt.Fprintf(b, "portcullis_decision_seconds_sum{request=%s} %s\n", label(r.Request), strconv.FormatFloat(r.Seconds, 'g', -1, 64))
		fmt.Fprintf(b, "portcullis_decision_seconds_count{request=%s} %d\n", label(r.Request), r.Allowed+r.Denied)
	}
}

// label is a label's value in quotes.
func label(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(value) + `"`
}
