// SPDX-License-Identifier: Apache-2.0

package rest

import "testing"

func TestWhichCgroupsAreTheGuestsOwn(t *testing.T) {
	own := cgroups{"": "/system.slice/kata-opa.service", "memory": "/own/place"}
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"the root, an agent as init", "0::/\n", true},
		{"init under systemd", "0::/init.scope\n", true},
		{"the agent's service", "0::/system.slice/kata-agent.service\n", true},
		{"the server's own", "0::/system.slice/kata-opa.service\n2:memory:/own/place\n", true},
		{"a login", "0::/user.slice/user-0.slice/session-1.scope\n", true},
		{"a pod", "0::/kubepods/besteffort/pod1/c1\n", false},
		{"a pod under systemd", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-c1.scope\n", false},
		{"a container in the system slice", "0::/system.slice/cri-containerd-c1.scope\n", false},
		{"below a service", "0::/system.slice/kata-agent.service/c1\n", false},
		{"below the server's own", "0::/system.slice/kata-opa.service/c1\n", false},
		{"a service by name only", "0::/c1.service\n", false},
		{"dots", "0::/user.slice/../kubepods/c1\n", false},
		{"outside of the namespace", "0::/../c1\n", false},
		{"one of many hierarchies of v1", "3:pids:/kubepods/c1\n2:memory:/\n1:name=systemd:/\n0::/\n", false},
		{"the own path in another hierarchy", "2:pids:/own/place\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			peer, err := parseCgroups(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if err := own.check(peer); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatIsNoCgroupFileIsAnError(t *testing.T) {
	for _, text := range []string{"", "\n", "0:/", "0::", "0::relative\n", "x", "0::/\nx\n"} {
		if c, err := parseCgroups(text); err == nil {
			t.Errorf("%q: got %v", text, c)
		}
	}
}

func TestOnlyLoopbackAddressesAreServed(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:8181": true, "localhost:8181": true, "[::1]:8181": true, "127.1.2.3:1": true,
		"0.0.0.0:8181": false, ":8181": false, "[::]:8181": false, "10.0.0.1:8181": false, "example.com:8181": false, "127.0.0.1": false,
		"127.0.0.1:http": false, "[fe80::1%lo]:1": false, "unix:///x": false, "[::ffff:127.0.0.1]:1": true,
	} {
		if _, err := ParseAddress(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
