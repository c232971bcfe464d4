// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"portcullis/rules/admission"
)

// Config says what a server answers with. All files are read again when they change.
type Config struct {
	Certificate, Key string // PEM files; both are renewed together
	ClientCA         string // PEM file of who signs the API server's certificate; "" asks for none
	Floor            string // TOML file, see [admission.ParseFloor]
	// Judge makes the judge of a floor.
	Judge func(*admission.Floor) (*admission.Judge, error)
	Log   *slog.Logger
}

// Time that a client has, so that none holds a connection for nothing. An API server waits for 30 seconds at most.
const (
	headerTime = 5 * time.Second
	reviewTime = 30 * time.Second
	idleTime   = 2 * time.Minute
	stopTime   = 10 * time.Second
)

// Server answers reviews at [Path], and tells at /healthz that it runs.
type Server struct{ http *http.Server }

// New reads the files of a configuration.
func New(c Config) (*Server, error) {
	judge, err := newRenewed("floor", []string{c.Floor}, c.Log, func(texts [][]byte) (*admission.Judge, error) {
		floor, err := admission.ParseFloor(texts[0])
		if err != nil {
			return nil, err
		}
		return c.Judge(floor)
	})
	if err != nil {
		return nil, err
	}
	settings, err := c.tls()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(Path, &handler{judge: judge, busy: make(chan struct{}, runtime.GOMAXPROCS(0)), log: c.Log})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	return &Server{&http.Server{
		Handler: mux, TLSConfig: settings, ReadHeaderTimeout: headerTime, ReadTimeout: reviewTime, WriteTimeout: 2 * reviewTime, IdleTimeout: idleTime,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}}, nil
}

// tls asks for certificates at each connection, so that a renewed one counts without a restart.
func (c Config) tls() (*tls.Config, error) {
	paths := []string{c.Certificate, c.Key}
	if c.ClientCA != "" {
		paths = append(paths, c.ClientCA)
	}
	current, err := newRenewed("certificate", paths, c.Log, func(texts [][]byte) (*tls.Config, error) {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			return nil, err
		}
		out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
		if c.ClientCA == "" {
			return out, nil
		}
		out.ClientCAs, out.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !out.ClientCAs.AppendCertsFromPEM(texts[2]) {
			return nil, errors.New("the file of client authorities has no certificate")
		}
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return current.get(), nil
	}}, nil
}

// Serve answers until the context ends, then lets what runs come to its end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.http.ServeTLS(l, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve reviews: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := s.http.Shutdown(last); err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}
