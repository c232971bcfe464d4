// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/engine/binding"
	"portcullis/hostdata/initdata"
	"portcullis/internal/hostdatatest"
)

// withoutInitdata is a machine whose launcher bound the policy alone, and whose disks are the files of root/dev.
func withoutInitdata(t *testing.T) *machine {
	t.Helper()
	snp := &hostdatatest.SNP{}
	copy(snp.HostData[:], sum256(podPolicy))
	m := newMachine(t, hostdatatest.Guest{SNP: snp})
	m.conf.Binding.Mode = "required"
	m.write("root/dev/vda", "the pod's data")
	root := m.path("root")
	m.guest.disks = initdata.Disks{Root: root, Open: func(path string) (io.ReadCloser, error) { return os.Open(filepath.Join(root, path)) }}
	return m
}

// TestInitdataThatComesLater: a guest that began without initdata stays without. The agent, which starts after policyd has looked,
// would give what it finds to the attestation agent, and nothing binds that.
func TestInitdataThatComesLater(t *testing.T) {
	tests := []struct {
		name   string
		appear func(*machine)
		code   binding.Code
	}{
		{"nothing", func(*machine) {}, ""},
		{"another file of a peer pod", func(m *machine) { m.write("peerpod/daemon.json", "{}") }, ""},
		{"another disk of data", func(m *machine) { m.write("root/dev/vdb", "data") }, ""},
		{"aa.toml", func(m *machine) { m.write("cc/aa.toml", "[x]\n") }, binding.CodeInitdataChanged},
		{"cdh.toml of a peer pod", func(m *machine) { m.write("peerpod/cdh.toml", "[x]\n") }, binding.CodeInitdataChanged},
		{"the document", func(m *machine) { m.write("peerpod/initdata.toml", "x") }, binding.CodeInitdataChanged},
		{"a disk", func(m *machine) { m.write("root/dev/vdb", "initdata") }, binding.CodeInitdataChanged},
		{"a disk that was another", func(m *machine) { m.write("root/dev/vda", "initdata") }, binding.CodeInitdataChanged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := withoutInitdata(t)
			m.boot()
			tt.appear(m)
			m.agentUp()
			m.setPolicy(podPolicy, "")
			m.sandbox(tt.code)
			if n := m.agent.Calls("CreateSandbox"); (n == 0) != (tt.code != "") {
				t.Errorf("%d requests reached the agent", n)
			}
		})
		t.Run(tt.name+", beside a running pod", func(t *testing.T) {
			m := withoutInitdata(t)
			m.boot()
			m.agentUp()
			m.setPolicy(podPolicy, "")
			m.sandbox("")
			tt.appear(m)
			err := m.request("CreateContainer", container(strings.Repeat("c", 64)))
			if denied := strings.Contains(fmt.Sprint(err), string(binding.CodeInitdataChanged)); denied != (tt.code != "") {
				t.Errorf("CreateContainer: %v, want %q", err, tt.code)
			}
		})
	}
}

// TestCopiesBesideNoInitdata: files that were there before policyd are no more bound than those that come later.
func TestCopiesBesideNoInitdata(t *testing.T) {
	for _, name := range []string{"cc/aa.toml", "peerpod/cdh.toml", "peerpod/initdata.toml"} {
		m := withoutInitdata(t)
		m.write(name, "x")
		m.boot()
		m.agentUp()
		m.setPolicy(podPolicy, "")
		m.sandbox(binding.CodeInitdataChanged)
	}
}

// TestRestartKeepsThatThereIsNoInitdata: a process that ends before anything ran must not come back to another answer.
func TestRestartKeepsThatThereIsNoInitdata(t *testing.T) {
	m := withoutInitdata(t)
	m.boot().stop()
	doc := pod(t, nil)
	m.write("root/dev/vdb", string(image(t, doc)))
	m.boot()
	m.agentUp()
	m.sandbox(binding.CodeInitdataChanged)
}
