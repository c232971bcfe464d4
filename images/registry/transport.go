// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

// ErrPlainHTTP says that a host would have to be spoken to without TLS, and that nobody allowed it.
var ErrPlainHTTP = errors.New("plain HTTP is not allowed for this host; name it as an insecure registry if it must be")

// Roots is the system's certificate authorities and those of a PEM file.
func Roots(pemFile string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(pemFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading certificate authorities: %s holds no PEM certificate", pemFile)
	}
	return pool, nil
}

// newTransport has timeouts for what a dead host would let hang, but none for a blob, which may take long.
func newTransport(o Options) http.RoundTripper {
	return &guard{insecure: o.Insecure, next: &http.Transport{
		Proxy:                 o.Proxy,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
	}}
}

// guard refuses plain HTTP. go-containerregistry by itself falls back to it for local and private addresses, where an
// attacker on the network could then say what a tag means, and so what the policy allows.
type guard struct {
	insecure []string
	next     http.RoundTripper
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !isInsecure(g.insecure, r.URL.Host) {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, ErrPlainHTTP)
	}
	return g.next.RoundTrip(r)
}

// isInsecure finds a host as it was named, or without its port.
func isInsecure(insecure []string, host string) bool {
	bare, _, err := net.SplitHostPort(host)
	return slices.Contains(insecure, host) || err == nil && slices.Contains(insecure, bare)
}
