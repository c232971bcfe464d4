// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

// authority makes certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = template
	a.pem, _, a.key = a.sign(template, nil)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a certificate and its key; without a signer it signs itself.
func (a *authority) sign(template *x509.Certificate, signer *ecdsa.PrivateKey) (cert, key []byte, private *ecdsa.PrivateKey) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), private
}

// issue makes a certificate for a server or a client.
func (a *authority) issue(usage x509.ExtKeyUsage) (cert, key []byte) {
	cert, key, _ = a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "podvm"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, a.key)
	return cert, key
}

func (a *authority) client() tls.Certificate {
	pair, err := tls.X509KeyPair(a.issue(x509.ExtKeyUsageClientAuth))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// tlsRig has a gate that listens under TLS too.
func tlsRig(t testing.TB) (r *rig, servers, clients *authority, address string) {
	t.Helper()
	r = newRig(t, rigOptions{policy: allowAll})
	servers, clients = newAuthority(t, "servers"), newAuthority(t, "clients")
	cert, key := servers.issue(x509.ExtKeyUsageServerAuth)
	a, err := gate.ParseAddress("tls://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.ListenTLS(context.Background(), gate.TLSFiles{Certificate: cert, Key: key, ClientCA: clients.pem})
	if err != nil {
		t.Fatal(err)
	}
	go r.gate.Serve(context.Background(), l) //nolint:errcheck // ends with the rig's Shutdown
	return r, servers, clients, l.Addr().String()
}

func TestClientOfTheAuthorityIsServedUnderTLS(t *testing.T) {
	_, servers, clients, address := tlsRig(t)
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: servers.pool(), Certificates: []tls.Certificate{clients.client()}})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	c.must("CreateSandbox", sandbox())
	c.must("CreateContainer", createContainer("app", "pause"))
	c.must("WriteStdin", &agentpb.WriteStreamRequest{ContainerId: "app", Data: make([]byte, 512<<10)})
	c.fails(codes.PermissionDenied, "CopyFile", &agentpb.CopyFileRequest{Path: "/run/portcullis/x", FileMode: 0o100644})
}

func TestOtherPeersAreRefusedUnderTLS(t *testing.T) {
	r, servers, clients, address := tlsRig(t)
	stranger := newAuthority(t, "stranger")
	cert, key := clients.issue(x509.ExtKeyUsageServerAuth)
	server, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":                   {},
		"a certificate of another's":       {Certificates: []tls.Certificate{stranger.client()}},
		"a certificate for servers":        {Certificates: []tls.Certificate{server}},
		"TLS 1.2":                          {Certificates: []tls.Certificate{clients.client()}, MaxVersion: tls.VersionTLS12},
		"a certificate of the server's CA": {Certificates: []tls.Certificate{servers.client()}},
	} {
		t.Run(name, func(t *testing.T) {
			config.RootCAs = servers.pool()
			conn, err := tls.Dial("tcp", address, config)
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Write(frame(1, frameRequest, 0, request(t, "GetGuestDetails", &agentpb.GuestDetailsRequest{})))
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 {
				t.Error("it is answered")
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(frame(1, frameRequest, 0, request(t, "GetGuestDetails", &agentpb.GuestDetailsRequest{})))
		expectClose(t, conn)
	})
	if n := r.agent.Calls("GetGuestDetails"); n != 0 {
		t.Errorf("%d requests reached the agent", n)
	}
}

func TestSlowHandshakesAreFewAndEnd(t *testing.T) {
	_, servers, clients, address := tlsRig(t)
	var slow []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		slow = append(slow, conn)
	}
	closed := 0 // those beyond the bound, at once
	time.Sleep(500 * time.Millisecond)
	for _, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
			closed++
		}
	}
	if closed < 60 {
		t.Errorf("%d of 100 peers that say nothing were closed at once", closed)
	}
	for _, conn := range slow { // the others after a while
		expectClose(t, conn)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: servers.pool(), Certificates: []tls.Certificate{clients.client()}})
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, conn).must("GetGuestDetails", &agentpb.GuestDetailsRequest{})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A session of TCP is one of a known client, whatever listener it comes from.
func TestPlainTCPIsNotServed(t *testing.T) {
	r := newRig(t, rigOptions{policy: allowAll})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go r.gate.Serve(context.Background(), l) //nolint:errcheck // ends with the rig's Shutdown
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	expectClose(t, conn)
}

func TestAddresses(t *testing.T) {
	for s, ok := range map[string]bool{
		"unix:///run/a.sock": true, "unix://a": false, "vsock://-1:1024": true, "vsock://2:x": false,
		"tls://0.0.0.0:15150": true, "tls://[::]:15150": true, "tls://:15150": true, "tls://host:15150": false, "tls://0.0.0.0": false, "tls://0.0.0.0:99999": false,
		"tcp://127.0.0.1:15151": true, "tcp://[::1]:15151": true, "tcp://0.0.0.0:15151": false, "tcp://10.0.0.1:15151": false, "tcp://:1": false, "tcp://localhost:1": false,
	} {
		a, err := gate.ParseAddress(s)
		if (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
		if ok && a.String() != s {
			t.Errorf("%s reads as %s", s, a)
		}
	}
}
