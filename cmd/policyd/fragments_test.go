// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine/binding"
	"portcullis/engine/fragment"
	"portcullis/hostdata/initdata"
	"portcullis/internal/generatetest"
	"portcullis/internal/hostdatatest"
	"portcullis/internal/rulestest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

// imageBy is an image of the release's repository, by a digest of one digit.
func imageBy(digit string) string {
	return "registry.example.org/shop/proxy@sha256:" + strings.Repeat(digit, 64)
}

const releasePod = `apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  containers:
  - {name: proxy, image: "docker.io/istio/proxyv2:1.27.0"}
  - {name: web, image: "ghcr.io/acme/app:v2"}
`

// release is a pod whose second container may be updated by a key, on a machine with a TPM and a launch record.
type release struct {
	*machine
	key    ed25519.PrivateKey
	policy *policydata.Policy // as it is measured
	text   string
}

// newRelease writes the policy, the key and the next policy into the machine's directory.
func newRelease(t testing.TB) *release {
	t.Helper()
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.conf.Measure.Pod = "pcr"
	r := &release{machine: m, key: ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))}
	r.write("pod.yaml", releasePod)
	made, _, err := generatetest.Policies(generatetest.Manifest(t, m.path("pod.yaml")),
		generatetest.Settings(t, "guest-pull"), generatetest.Images(t, "../../rules/generate/testdata/images.json"))
	if err != nil {
		t.Fatal(err)
	}
	r.policy = made[0]
	setImage(r.policy.Containers["web"], imageBy("1"))
	spki, err := x509.MarshalPKIXPublicKey(r.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(spki)
	r.policy.Issuers = []fragment.Issuer{{Feed: "web", MinimumSVN: 2, Key: public,
		May: []fragment.May{{Path: "containers.web.image", Registries: []string{"registry.example.org/shop"}}, {Path: "containers.web.exec"}}},
		{Feed: "probes", Key: public, May: []fragment.May{{Path: "containers.proxy.exec"}}}}
	r.text = r.compact(r.policy)
	r.write("policy.rego", r.text)
	der, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	r.write("release.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return r
}

func setImage(c *policydata.Container, name string) {
	_, digest, _ := strings.Cut(name, "@")
	c.Image = policydata.Image{From: policydata.GuestPull, Source: name, Digest: digest}
	c.OCI.Annotations.ImageName = name
}

func (r *release) compact(p *policydata.Policy) string {
	r.t.Helper()
	text, err := p.Compact(rules.Text())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// next is the policy with another image of web.
func (r *release) next(image string) *policydata.Policy {
	r.t.Helper()
	p, _, err := policydata.Parse([]byte(r.text))
	if err != nil {
		r.t.Fatal(err)
	}
	setImage(p.Containers["web"], image)
	return p
}

// fragment is what policyctl makes and signs of the next policy, as text.
func (r *release) fragment(svn int, image string) string {
	r.t.Helper()
	r.write("next.rego", r.compact(r.next(image)))
	r.write("document", r.ctl(0, "fragment", "make", "--measured=policy.rego", "--next=next.rego", "--feed=web", fmt.Sprintf("--svn=%d", svn)))
	return r.ctl(0, "fragment", "sign", "--text", "--key=release.pem", "document")
}

// signed is a fragment as text, made without the tool.
func (r *release) signed(svn uint64, image string) string {
	r.t.Helper()
	_, digest, _ := strings.Cut(image, "@")
	envelope, err := fragment.Sign(fragment.Document{Version: 1, Feed: "web", SVN: svn, Containers: map[string]*fragment.Part{
		"web": {Image: &fragment.Image{Name: image, Also: []string{}, Digest: digest}}}}, r.key, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(fragment.Text(envelope))
}

// play sends emulated requests, each of which must be allowed, or none.
func (r *release) play(allowed bool, requests ...rulestest.Request) {
	r.t.Helper()
	for _, q := range requests {
		input, err := json.Marshal(q.Input)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, method := range agentproto.Methods() {
			if method.EntryPoint() != q.Kind {
				continue
			}
			message, err := agentproto.FromInput(method.Request, input)
			if err != nil {
				r.t.Fatal(err)
			}
			if err := r.request(method.Name, message); (err == nil) != allowed {
				r.t.Errorf("%s %v: %v; want it allowed: %t", q.Kind, q.Input["container_id"], err, allowed)
			}
		}
	}
}

// webAgain are the requests that create and start web once more, with another id.
func webAgain(p *policydata.Policy, identity rulestest.Pod, n int) []rulestest.Request {
	e := rulestest.Emulator{Policy: p, Pod: identity}
	text, err := json.Marshal([]rulestest.Request{e.CreateContainer("web"), {Kind: "StartContainerRequest", Input: map[string]any{"container_id": rulestest.ID("web")}}})
	if err != nil {
		panic(err)
	}
	var out []rulestest.Request
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), rulestest.ID("web"), fmt.Sprintf("%064x", n))), &out); err != nil {
		panic(err)
	}
	return out
}

func ended(id string) []rulestest.Request {
	return []rulestest.Request{
		{Kind: "SignalProcessRequest", Input: map[string]any{"container_id": id, "exec_id": "", "signal": 9}},
		{Kind: "WaitProcessRequest", Input: map[string]any{"container_id": id, "exec_id": ""}},
		{Kind: "RemoveContainerRequest", Input: map[string]any{"container_id": id, "timeout": 0}},
	}
}

// TestRollingUpdateOfAContainer: a running pod's container gets another image by a fragment. The other containers run on, the guest is not
// started anew, and one command outside sees all of it.
func TestRollingUpdateOfAContainer(t *testing.T) {
	r := newRelease(t)
	r.boot()
	r.setPolicy(r.text, "")
	r.agentUp()
	e := rulestest.Emulator{Policy: r.policy, Pod: rulestest.DefaultPod(r.policy)}
	r.play(true, e.All()...)
	next := r.next(imageBy("2"))
	old := rulestest.ID("web")
	r.play(true, rulestest.Request{Kind: "StatsContainerRequest", Input: map[string]any{"container_id": old}})

	update := r.fragment(2, imageBy("2"))
	r.write("update.cose", update)
	if out := r.ctl(0, "set-policy", "unix://"+r.path("gate.sock"), "update.cose"); !strings.Contains(out, "ALLOW") {
		t.Errorf("set-policy: %s", out)
	}
	for _, name := range e.Order() { // all of them run on
		r.play(true, rulestest.Request{Kind: "StatsContainerRequest", Input: map[string]any{"container_id": rulestest.ID(name)}})
	}
	r.play(false, webAgain(next, e.Pod, 7)...) // not beside the one that runs
	r.play(true, ended(old)...)
	r.play(false, webAgain(r.policy, e.Pod, 8)...)
	r.play(true, webAgain(next, e.Pod, 9)...)
	if got := r.agent.Containers(); len(got) != len(r.policy.Containers) {
		t.Errorf("the agent has containers %q", got)
	}

	r.quoted("sha256:8,14")
	verified := []string{"--policy=policy.rego", "--pod=policy.rego"}
	v := r.verifies(0, append(verified, "--fragment=update.cose")...)
	found := false
	for _, c := range v.Pod.Containers {
		found = found || c.Name == "web" && c.State == "running" && c.Digest == next.Containers["web"].Image.Digest
	}
	if !found {
		t.Errorf("no web runs with the new image: %+v", v.Pod.Containers)
	}
	if v = r.verifies(3, verified...); v.detail("pod-containers") == "" {
		t.Errorf("without the fragment the new image passes: %+v", v)
	}
	if v = r.verifies(3, "--policy=policy.rego"); !strings.Contains(v.detail("fragments"), "nobody vouches") {
		t.Errorf("without the fragment: %+v", v)
	}
	digest := r.ctl(0, "fragment", "inspect", "--policy=policy.rego", "update.cose")
	var inspected struct{ Digest string }
	if err := json.Unmarshal([]byte(digest), &inspected); err != nil {
		t.Fatal(err)
	}
	r.verifies(0, "--policy=policy.rego", "--fragment-digest="+inspected.Digest)
	r.verifies(3, "--policy=policy.rego", "--fragment-digest="+strings.Repeat("0", 64))
}

// TestFragmentKilledAtEveryStep kills policyd with SIGKILL after each step of a fragment's measurement and starts it again: there is one
// extend at most, and the policy that decides is the one that the register shows.
func TestFragmentKilledAtEveryStep(t *testing.T) {
	for step := measure.StepRead; step <= measure.StepCommitted; step++ {
		t.Run(step.String(), func(t *testing.T) {
			r := newRelease(t)
			first := r.boot()
			r.setPolicy(r.text, "")
			r.agentUp()
			e := rulestest.Emulator{Policy: r.policy, Pod: rulestest.DefaultPod(r.policy)}
			r.play(true, e.CreateSandbox())
			first.stop()
			update := r.signed(2, imageBy("2"))
			cmd := r.child(step)
			if err := r.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: update}); err == nil {
				t.Error("SetPolicy was answered")
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("policyd ended with %v, want SIGKILL", err)
			}
			second := r.boot()
			if err := second.d.chain.Denial(); err != nil {
				t.Fatal(err)
			}
			measured := step >= measure.StepExtended
			if got := len(second.d.chain.Status(t.Context()).Fragments); (got == 1) != measured {
				t.Errorf("%d fragments are in force, want it in force: %t", got, measured)
			}
			r.fragmentEvents(map[bool]int{true: 1}[measured])
			r.setPolicy(update, "")
			r.fragmentEvents(1)
			r.play(true, webAgain(r.next(imageBy("2")), e.Pod, 9)[0])
		})
	}
}

// fragmentEvents requires that the log leads to the register's value, with so many fragments behind the policy.
func (r *release) fragmentEvents(want int) {
	r.t.Helper()
	records, err := eventlog.Decode([]byte(r.read("run/measure.jsonseq")))
	if err != nil {
		r.t.Fatal(err)
	}
	of, _ := eventlog.Split(records)
	values, err := eventlog.Replay(of, 8)
	if err != nil {
		r.t.Fatal(err)
	}
	for bank, value := range r.pcr8() {
		if values[bank].String() != value {
			r.t.Errorf("bank %s is %s, the log leads to %s", bank, value, values[bank])
		}
	}
	if len(of) != 1+want {
		r.t.Errorf("%d events, want the policy's and %d of fragments", len(of), want)
	}
}

// TestParallelFragmentsOnATPM: 64 at a time: each svn once, and the highest is in force.
func TestParallelFragmentsOnATPM(t *testing.T) {
	r := newRelease(t)
	d := r.boot()
	r.setPolicy(r.text, "")
	texts := make([]string, 64)
	for i := range texts {
		envelope, err := fragment.Sign(fragment.Document{Version: 1, Feed: "web", SVN: uint64(2 + i/2), Containers: map[string]*fragment.Part{
			"web": {Exec: &[][]string{{fmt.Sprint(i)}}}}}, r.key, nil)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(fragment.Text(envelope))
	}
	answers := make(chan error, len(texts))
	for _, text := range texts {
		go func() { answers <- d.d.chain.SetPolicy(t.Context(), []byte(text)) }()
	}
	taken := 0
	for range texts {
		var refused *binding.Error
		switch err := <-answers; {
		case err == nil:
			taken++
		case !errors.As(err, &refused) || refused.Code != binding.CodeFragmentRollback:
			t.Error(err)
		}
	}
	if got := d.d.chain.Status(t.Context()).Fragments; len(got) != 1 || got[0].SVN != 33 {
		t.Errorf("in force: %+v, want svn 33", got)
	}
	r.fragmentEvents(taken)
}

// TestFragmentsThroughTheGate: what a host may try. Nothing of it reaches the register.
func TestFragmentsThroughTheGate(t *testing.T) {
	r := newRelease(t)
	r.boot()
	update := r.signed(5, imageBy("2"))
	older := r.signed(4, imageBy("3"))
	r.setPolicy(update, binding.CodeNotSet)
	r.setPolicy(r.text, "")
	r.setPolicy(update, "")
	r.setPolicy(older, binding.CodeFragmentRollback)
	stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32)))
	envelope, err := fragment.Sign(fragment.Document{Version: 1, Feed: "web", SVN: 9, Containers: map[string]*fragment.Part{
		"web": {Exec: &[][]string{{"sh"}}}}}, stranger, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.setPolicy(string(fragment.Text(envelope)), binding.CodeFragmentIssuer)
	r.setPolicy(r.signed(9, strings.Replace(imageBy("2"), "registry", "evil", 1)), binding.CodeFragmentCeiling)
	r.setPolicy(r.signed(1, imageBy("2")), binding.CodeFragmentRollback) // below minimum_svn
	r.setPolicy(update+"x", binding.CodeFragmentInvalid)
	if err := r.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: "portcullis-fragment:" + strings.Repeat("A", 10<<20)}); err == nil {
		t.Error("10 MiB are taken")
	}
	r.fragmentEvents(1)
	probes, err := fragment.Sign(fragment.Document{Version: 1, Feed: "probes", SVN: 1, Containers: map[string]*fragment.Part{
		"proxy": {Exec: &[][]string{{"probe"}}}}}, r.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.setPolicy(string(fragment.Text(probes)), "") // feeds have svns of their own
	r.setPolicy(r.signed(5, imageBy("3")), binding.CodeFragmentRollback)
	r.fragmentEvents(2)
	s := r.ctl(0, "status", "--socket", r.path("run/status.sock"))
	if !strings.Contains(s, "web") {
		t.Errorf("status does not show the fragment:\n%s", s)
	}
}

// TestNarrowUpdate: policy_update = "narrow" takes a policy that allows no more, keeps what runs, and refuses any other.
func TestNarrowUpdate(t *testing.T) {
	r := newRelease(t)
	r.conf.Binding.PolicyUpdate = "narrow"
	r.policy.Requests.Exec.Commands = [][]string{{"ls"}, {"ps"}}
	r.text = r.compact(r.policy)
	r.write("policy.rego", r.text)
	r.boot()
	r.setPolicy(r.text, "")
	r.agentUp()
	e := rulestest.Emulator{Policy: r.policy, Pod: rulestest.DefaultPod(r.policy)}
	r.play(true, e.All()...)
	r.play(true, e.ExecProcess("web", []string{"ls"}))
	next := r.next(imageBy("1"))
	next.Requests.Exec.Commands, next.Issuers = [][]string{{"ps"}}, nil
	for _, wider := range []func(*policydata.Policy){
		func(p *policydata.Policy) { p.Requests.Exec.Commands = [][]string{{"sh"}} },
		func(p *policydata.Policy) { setImage(p.Containers["web"], imageBy("2")) },
		func(p *policydata.Policy) { p.Containers["more"] = p.Containers["web"] },
		func(p *policydata.Policy) { p.Issuers[0].MinimumSVN = 1 },
	} {
		p := r.next(imageBy("1"))
		wider(p)
		r.setPolicy(r.compact(p), binding.CodeNotNarrower)
	}
	r.extendedBy(sum256(r.text))
	r.write("narrower.rego", r.compact(next))
	r.setPolicy(r.compact(next), "")
	r.extendedBy(sum256(r.text), sum256(r.compact(next)))
	r.play(false, e.ExecProcess("web", []string{"ls"}))
	r.play(true, rulestest.Request{Kind: "StatsContainerRequest", Input: map[string]any{"container_id": rulestest.ID("web")}})
	r.setPolicy(r.text, binding.CodeNotNarrower)
	r.quoted("sha256:8,14")
	r.verifies(0, "--policy=narrower.rego", "--earlier=policy.rego")
	r.verifies(3, "--policy=narrower.rego")
}

// TestFragmentsWithoutARegister: on SNP the launch record is the witness; without one a fragment is refused, and after a restart it is in force.
func TestFragmentsWithoutARegister(t *testing.T) {
	for _, pod := range []string{"off", "pcr"} {
		t.Run("measure.pod "+pod, func(t *testing.T) {
			r := newRelease(t)
			m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(r.text))}})
			m.conf.Measure.Pod = pod
			d := m.boot()
			m.setPolicy(r.text, "")
			if pod == "off" {
				m.setPolicy(r.signed(2, imageBy("2")), binding.CodeNoBackend)
				return
			}
			m.setPolicy(r.signed(2, imageBy("2")), "")
			if got := m.kinds(); got != "policy fragment" {
				t.Errorf("recorded %s", got)
			}
			d.stop()
			if got := m.boot().d.chain.Status(t.Context()).Fragments; len(got) != 1 || got[0].SVN != 2 {
				t.Errorf("in force after a restart: %+v", got)
			}
			if got := m.kinds(); got != "policy fragment" {
				t.Errorf("recorded after a restart: %s", got)
			}
			m.setPolicy(r.signed(2, imageBy("3")), binding.CodeFragmentRollback)
		})
	}
}

// TestFragmentsInInitdata are in force before the first request, and bound by the document: on SNP nothing else has to show them. One that does
// not verify keeps the guest closed.
func TestFragmentsInInitdata(t *testing.T) {
	r := newRelease(t)
	start := func(fragments ...string) *running {
		doc := pod(t, map[string]string{"policy.rego": r.text, initdata.FragmentsKey: strings.Join(fragments, "")})
		m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(doc.Digest())}})
		m.disks(hostdatatest.Disk{Name: "vdb", Contents: image(t, doc)})
		return m.boot()
	}
	d := start(r.signed(2, imageBy("2")), r.signed(3, imageBy("3")))
	if got := d.d.chain.Status(t.Context()).Fragments; len(got) != 1 || got[0].SVN != 3 {
		t.Errorf("in force: %+v", got)
	}
	d.setPolicy(r.signed(4, imageBy("4")), binding.CodeNoBackend) // nobody would see this one
	closed := start(r.signed(1, imageBy("2")))                    // below minimum_svn
	if err := closed.d.chain.Denial(); err == nil || !strings.Contains(err.Error(), string(binding.CodeFragmentRollback)) {
		t.Errorf("a guest whose initdata has a fragment that is refused is open: %v", err)
	}
}
