// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/agenttest"
)

// selfSigned is a certificate that is its own authority, for both ends.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// In front of the forwarder: its certificates are the gate's, and what is denied never reaches it.
func TestInFrontOfTheForwarder(t *testing.T) {
	cert, key := selfSigned(t)
	port := freePort(t)
	p := &process{t: t, dir: t.TempDir(), agent: agenttest.New(agenttest.Options{})}
	given, err := json.Marshal(map[string]any{"pod-network": map[string]any{}, "tls-server-cert": string(cert), "tls-server-key": string(key), "tls-client-ca": string(cert)})
	if err != nil {
		t.Fatal(err)
	}
	p.write("daemon.json", string(given))
	p.write("default.rego", setPolicyOnly)
	behind := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.write("config.toml", fmt.Sprintf("[gate]\nlisten = [\"tls://127.0.0.1:%d\"]\nagent = \"tcp://%s\"\ntls = { forwarder = %q }\n[policy]\ndefault = %q\n[binding]\ninitdata = \"off\"\n[log]\nevents = %q\n",
		port, behind, p.path("daemon.json"), p.path("default.rego"), p.path("run/measure.jsonseq")))
	p.start()
	if err := p.agent.Start(p.path("agent.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.agent.Kill)
	forwarder, err := net.Listen("tcp", behind)
	if err != nil {
		t.Fatal(err)
	}
	defer forwarder.Close()
	go forward(forwarder, p.path("agent.sock"))

	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.stderr.String())
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	if err := p.callOn(client, "SetPolicy", &agentpb.SetPolicyRequest{Policy: onePod}); err != nil {
		t.Fatal(err)
	}
	if err := p.callOn(client, "CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod"}); err != nil {
		t.Fatal(err)
	}
	if err := p.callOn(client, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "x"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	if n := p.agent.Calls("StatsContainer"); n != 0 {
		t.Error("what is denied reached the forwarder")
	}
}

// forward passes each connection on to a unix socket.
func forward(l net.Listener, to string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		agent, err := net.Dial("unix", to)
		if err != nil {
			conn.Close()
			continue
		}
		go pipe(conn, agent)
		go pipe(agent, conn)
	}
}

func pipe(from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestPlainTCPIsNoAddressToListenOn(t *testing.T) {
	_, err := parseConfig([]byte("[gate]\nlisten = [\"tcp://127.0.0.1:15150\"]\n"))
	if err == nil || !strings.Contains(err.Error(), "want tls://") {
		t.Errorf("%v", err)
	}
}
