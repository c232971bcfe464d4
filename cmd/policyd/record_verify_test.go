// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"portcullis/agentproto/agentpb"
	"portcullis/hostdata/initdata"
	"portcullis/measure/eventlog"
)

// quoted takes the evidence as docs/verify.md says, with tpm2-tools.
func (m *machine) quoted(pcrs string) {
	m.t.Helper()
	m.tool("tpm2_createek", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub")
	m.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
	m.tool("tpm2_quote", "-c", "ak.ctx", "-l", pcrs, "-q", "00112233", "-m", "q.msg", "-s", "q.sig", "-o", "q.pcrs", "-g", "sha256")
	m.write("log", m.read("run/measure.jsonseq"))
}

// verdict is the verdict of each check, and what the record says.
type verdict struct {
	Verdict string
	Checks  []struct{ Name, Verdict, Detail string }
	Notes   []string
	Pod     *struct {
		Complete   bool
		Missing    []string
		Containers []struct{ Name, State, Digest string }
		Execs      []struct {
			Command string
			Count   int
		}
	}
}

// detail is what a check says that does not pass; empty for one that does.
func (v verdict) detail(name string) string {
	for _, c := range v.Checks {
		if c.Name == name && c.Verdict != "pass" {
			return c.Detail + "\x00"
		}
	}
	return ""
}

// verifies runs policyctl verify tpm on the evidence.
func (m *machine) verifies(exit int, args ...string) verdict {
	m.t.Helper()
	args = append([]string{"verify", "tpm", "--json", "--quote=q.msg", "--signature=q.sig", "--ak=ak.pub", "--pcrs=q.pcrs", "--log=log",
		"--nonce=00112233", "--trust-ak"}, args...)
	var v verdict
	if err := json.Unmarshal([]byte(m.ctl(exit, args...)), &v); err != nil {
		m.t.Fatal(err)
	}
	return v
}

func waitFor(n int) *agentpb.WaitProcessRequest {
	return &agentpb.WaitProcessRequest{ContainerId: containerID(n)}
}

// TestVerifyNamesWhatAPodIs plays pods through the gate, and holds what a real quote vouches for against the policy.
func TestVerifyNamesWhatAPodIs(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(recordedPod)
		// check fails, with this in what it says; with pod-complete it fails only with --complete.
		check, says string
	}{
		{"full life", recordedPod.fullLife, "", ""},
		{"a container is left out", func(p recordedPod) {
			p.sandbox()
			p.create(2, "init")
			p.start(2)
			p.must(p.request("WaitProcess", waitFor(2)))
		}, "pod-complete", "container web was not started"},
		{"a foreign order", func(p recordedPod) {
			p.sandbox()
			p.create(3, "web")
			p.start(3)
			p.create(2, "init")
			p.start(2)
			p.must(p.request("WaitProcess", waitFor(2)))
		}, "pod-order", "container web was created before init had succeeded"},
		{"an exec that nobody asked for", func(p recordedPod) {
			p.fullLife()
			p.exec(3, "sh", "-c", "cat /secret")
			p.exec(3, "sh", "-c", "cat /secret")
		}, "pod-exec", "in container web something was executed"},
		{"one container twice", func(p recordedPod) {
			p.fullLife()
			p.create(4, "web")
			p.start(4)
		}, "pod-containers", "container web was there twice"},
		{"a container that is not of the pod", func(p recordedPod) {
			p.fullLife()
			p.create(4, "miner")
		}, "pod-containers", `container "miner" is not of this pod`},
		{"a broken pod", func(p recordedPod) {
			p.fullLife()
			p.end(3)
		}, "pod-complete", "it is broken: container web was lost (signalled)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := recording(t)
			tt.play(recordedPod{m})
			m.quoted("sha256:8,14")
			exit := 0
			if tt.check != "" && tt.check != "pod-complete" {
				exit = 1
			}
			m.verifies(exit, "--pod=policy.rego")
			if tt.check != "" {
				exit = 1
			}
			v := m.verifies(exit, "--pod=policy.rego", "--complete")
			for _, c := range v.Checks {
				if fails := c.Name == tt.check; fails != (c.Verdict != "pass") && c.Name != "pod-complete" {
					t.Errorf("%s: %s %s", c.Name, c.Verdict, c.Detail)
				}
			}
			if tt.check != "" && !strings.Contains(v.detail(tt.check), tt.says) {
				t.Errorf("%s says %q, want %q", tt.check, v.detail(tt.check), tt.says)
			}
			if tt.check == "" && (!v.Pod.Complete || len(v.Pod.Containers) != 3 || v.Pod.Execs[0].Command != "cat /healthy" ||
				v.Pod.Containers[1].Digest != "sha256:"+strings.Repeat("1", 64) || v.Pod.Containers[2].State != "running") {
				t.Errorf("%+v", v.Pod)
			}
		})
	}
}

// TestVerifyTakesNoOtherLog: a record is believed as the register has it.
func TestVerifyTakesNoOtherLog(t *testing.T) {
	m := recording(t)
	recordedPod{m}.fullLife()
	m.quoted("sha256:8,14")
	m.verifies(0, "--pod=policy.rego", "--complete")
	records, err := eventlog.Decode([]byte(m.read("log")))
	if err != nil {
		t.Fatal(err)
	}
	// again makes a log of records that fits in itself.
	again := func(records []eventlog.Record) string {
		var log strings.Builder
		value := make(eventlog.Hex, 32)
		for i, r := range records {
			r.Num, r.Content.Seq = uint64(i), uint64(i)+1
			if r.Content.EventType == eventlog.Pod {
				next, err := eventlog.Extend("sha256", value, r.Content.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				r.Content.Prev, r.Content.Next, value = value, next, next
			}
			framed, err := eventlog.Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			log.Write(framed)
		}
		return log.String()
	}
	if again(records) != m.read("log") {
		t.Fatal("the log is not made again as it was")
	}
	swapped := slices.Clone(records)
	swapped[5], swapped[6] = swapped[6], swapped[5]
	last := len(records) - 1
	for name, log := range map[string]string{
		"truncated":              again(records[:last]),
		"without one in between": again(slices.Delete(slices.Clone(records), 5, 6)),
		"in another order":       again(swapped),
		"cut off":                m.read("log")[:len(m.read("log"))-5],
		"without any":            again(records[:1]),
	} {
		t.Run(name, func(t *testing.T) {
			m := *m
			m.t = t
			m.write("log", log)
			v := m.verifies(1, "--pod=policy.rego")
			if v.detail("pod-log") == "" || v.Pod != nil {
				t.Errorf("pod-log passes, or the record is believed: %+v", v)
			}
		})
	}
	m.write("log", again(records))
	m.verifies(1, "--pod=policy.rego", "--pod-pcr=13") // of which nothing is quoted
	m.write("other.rego", recordedPolicy+" ")
	if v := m.verifies(1, "--pod=other.rego"); v.detail("pod-policy") == "" {
		t.Errorf("another policy: %+v", v)
	}
}

// TestVerifyAgainstAManifest: its annotation has the policy, and its containers an order.
func TestVerifyAgainstAManifest(t *testing.T) {
	m := recording(t)
	recordedPod{m}.fullLife()
	m.quoted("sha256:8,14")
	manifest := func(containers string) {
		m.write("pod.yaml", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod\n  annotations:\n    %s: %s\nspec:\n%s",
			initdata.PolicyAnnotation, initdata.EncodePolicy([]byte(recordedPolicy)), containers))
	}
	manifest("  initContainers:\n  - name: init\n  containers:\n  - name: web\n")
	m.verifies(0, "--pod=pod.yaml", "--complete")
	manifest("  containers:\n  - name: web\n  - name: init\n")
	if v := m.verifies(1, "--pod=pod.yaml", "--complete"); !strings.Contains(v.detail("pod-order"), "container web was created after init") &&
		!strings.Contains(v.detail("pod-order"), "container init was created after web") {
		t.Errorf("%+v", v)
	}
}
