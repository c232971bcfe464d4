// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/journal"
	"portcullis/engine/rest"
	"portcullis/internal/opatest"
)

// rig is a server over a real chain.
type rig struct {
	url   string
	chain *binding.Chain
}

// startRig serves a chain whose default policy is text, changed by tune.
func startRig(t testing.TB, text string, tune func(*binding.Config)) *rig {
	t.Helper()
	ctx := context.Background()
	compiler, err := engine.NewCompiler(engine.CompilerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := compiler.Compile(ctx, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open("", "boot")
	if err != nil {
		t.Fatal(err)
	}
	c := binding.Config{Compiler: compiler, Default: first, Journal: j, Open: true, Alg: "sha256"}
	if tune != nil {
		tune(&c)
	}
	c.Engine = engine.New(first, engine.Options{})
	t.Cleanup(c.Engine.Close)
	chain := binding.New(c)
	if err := chain.Start(ctx, false); err != nil {
		t.Log("start:", err)
	}
	s := rest.New(rest.Config{Policies: chain, Engine: c.Engine, Default: first, ID: "default.rego"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() {
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return &rig{url: "http://" + l.Addr().String(), chain: chain}
}

// reply is what a server answered.
type reply struct {
	status   int
	body     string
	location string
}

// send sends one request without following redirects.
func send(t testing.TB, url, method, target, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = target // as it stands: paths that a client would clean are wanted
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return reply{resp.StatusCode, string(text), resp.Header.Get("Location")}
}

func (r *rig) send(t testing.TB, method, target, body string) reply {
	t.Helper()
	return send(t, r.url, method, target, body)
}

// ask asks as agents do.
func (r *rig) ask(t testing.TB, name, input string) string {
	t.Helper()
	got := r.send(t, "POST", "/v1/data/agent_policy/"+name, `{"input":`+input+`}`)
	if got.status != http.StatusOK {
		t.Errorf("%s: status %d: %s", name, got.status, got.body)
	}
	return got.body
}

const (
	yes  = `{"result":true}` + "\n"
	no   = `{"result":false}` + "\n"
	none = "{}\n"
)

// startOPA runs the real server, with the policy in files[0] if there is one, and returns its URL and process.
func startOPA(t testing.TB, files ...string) (url string, process *os.Process) {
	t.Helper()
	return startServer(t, opatest.Binary(t), []string{"run", "--server", "--v0-compatible", "--disable-telemetry", "--log-level", "error"}, files...)
}

// startServer runs a binary on a free port until the test ends.
func startServer(t testing.TB, binary string, args []string, files ...string) (url string, process *os.Process) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(binary, append(append(slices.Clone(args), "--addr", address), files...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/health")
		if err == nil {
			resp.Body.Close()
			return "http://" + address, cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", binary, err)
		}
	}
}

// fakeField holds one digest, as SNP's HOST_DATA does.
type fakeField []byte

func (f fakeField) Match(digest []byte) error {
	if !bytes.Equal(f, digest) {
		return errors.New("the hardware holds another digest")
	}
	return nil
}
