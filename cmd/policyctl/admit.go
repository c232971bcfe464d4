// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"portcullis/rules/admission/webhook"
)

func newAdmit() *cobra.Command {
	o := admitOptions{listen: ":8443"}
	cmd := &cobra.Command{
		Use:   "admit --floor F --tls-cert F --tls-key F",
		Short: "Answer a cluster's API server whether a pod's policy will do",
		Long: `Serve an admission webhook: a pod of the floor's runtime classes is refused if its annotation with a policy is missing, cannot
be read, is of rules that this program does not hold, is of another pod or of this one as it was, or asks less than the floor.
docs/admission.md has the floor, the manifest that installs it, and what it does not protect from.

Certificate, key and floor are read again when their files change; what cannot be read does not replace what could. Reviews
come to /admit; /healthz tells that it runs. A line of the log for each pod goes to standard error.`,
		Example: `  policyctl admit --floor floor.toml --tls-cert tls.crt --tls-key tls.key
  policyctl admit --listen 127.0.0.1:9443 --floor floor.toml --tls-cert tls.crt --tls-key tls.key -j logs`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.ErrOrStderr()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", o.listen, "`address` to listen on")
	flags.StringVar(&o.certificate, "tls-cert", "", "PEM `file` with the certificate, and those between it and its authority")
	flags.StringVar(&o.key, "tls-key", "", "PEM `file` with its key")
	flags.StringVar(&o.clientCA, "client-ca", "", "PEM `file`: answer only clients with a certificate of these authorities")
	o.judge.add(cmd)
	return cmd
}

type admitOptions struct {
	listen, certificate, key, clientCA string
	judge                              judgeOptions
}

func (o *admitOptions) run(ctx context.Context, log io.Writer) error {
	if o.judge.floor == "" || o.certificate == "" || o.key == "" {
		return usageError(errors.New("--floor, --tls-cert and --tls-key are required"))
	}
	server, err := webhook.New(webhook.Config{
		Certificate: o.certificate, Key: o.key, ClientCA: o.clientCA, Floor: o.judge.floor, Judge: o.judge.judge,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("admit: %w", err)
	}
	fmt.Fprintf(log, "answers reviews at https://%s%s\n", listener.Addr(), webhook.Path)
	return server.Serve(ctx, listener)
}
