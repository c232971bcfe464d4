// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bounds on peers that have not shown who they are.
const (
	handshakeTimeout = 5 * time.Second
	handshakes       = 32 // at a time; further connections are closed
)

// TLSFiles is what a TLS listener shows and demands, all in PEM.
type TLSFiles struct{ Certificate, Key, ClientCA []byte }

// ErrTLS says that a certificate, a key or the clients' authority cannot be used.
var ErrTLS = errors.New("TLS cannot be set up")

// Check says whether a listener can be set up with them.
func (f TLSFiles) Check() error {
	_, err := f.config()
	return err
}

// config demands TLS 1.3 and a certificate of the clients' authority. Nothing of a connection outlives it.
func (f TLSFiles) config() (*tls.Config, error) {
	pair, err := tls.X509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate and key: %w", ErrTLS, err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(f.ClientCA) {
		return nil, fmt.Errorf("%w: no certificate in the clients' authority", ErrTLS)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, SessionTicketsDisabled: true,
	}, nil
}

// ListenTLS opens a listener on an address of tls://. It yields connections whose client has shown a certificate of the
// authority; others are closed, within a time and in bounded number.
func (a Address) ListenTLS(ctx context.Context, files TLSFiles) (net.Listener, error) {
	config, err := files.config()
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	var lc net.ListenConfig
	raw, err := lc.Listen(ctx, "tcp", a.Host)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	l := &tlsListener{Listener: raw, config: config, ready: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{}),
		slots: make(chan struct{}, handshakes)}
	go l.accept()
	return l, nil
}

// tlsListener shakes hands beside Accept, so that a slow peer keeps nobody waiting.
type tlsListener struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn
	failed chan error // of the last accept, if it was not Close
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *tlsListener) accept() {
	for {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			l.failed <- err
			return
		}
		if err != nil { // such as a lack of descriptors: it passes
			time.Sleep(100 * time.Millisecond)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			go l.shake(conn)
		default:
			conn.Close()
		}
	}
}

// shake offers a connection to Accept once its client is known.
func (l *tlsListener) shake(raw net.Conn) {
	defer func() { <-l.slots }()
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if conn.HandshakeContext(ctx) != nil || !isKnown(conn) {
		raw.Close() // without a word: who it is, is not known
		return
	}
	select {
	case l.ready <- conn:
	case <-l.closed:
		conn.Close()
	}
}

// isKnown reports whether the client of a connection has shown its certificate.
func isKnown(conn *tls.Conn) bool {
	s := conn.ConnectionState()
	return s.HandshakeComplete && s.Version >= tls.VersionTLS13 && len(s.VerifiedChains) > 0
}

func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		l.failed <- err
		return nil, err
	}
}

func (l *tlsListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
