// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
)

// What a request takes is known before it is made: the small ones a host could blow up, and what runtimes send.
func TestWeightIsWhatDecodingTakes(t *testing.T) {
	repeated := func(n int, field protowire.Number, value []byte) []byte {
		var b []byte
		for range n {
			b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
		}
		return b
	}
	spec := func(change func(*agentpb.Spec)) []byte {
		s := &agentpb.Spec{Process: &agentpb.Process{}, Linux: &agentpb.Linux{}}
		change(s)
		wire, err := proto.Marshal(&agentpb.CreateContainerRequest{ContainerId: "c", OCI: s})
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	for name, wire := range map[string][]byte{
		"empty storages":      repeated(15000, 5, nil),
		"empty devices":       repeated(15000, 4, nil),
		"empty shared mounts": repeated(15000, 8, nil),
		"empty mounts": spec(func(s *agentpb.Spec) {
			s.Mounts = make([]*agentpb.Mount, 0)
			for range 20000 {
				s.Mounts = append(s.Mounts, &agentpb.Mount{})
			}
		}),
		"empty variables": spec(func(s *agentpb.Spec) { s.Process.Env = make([]string, 50000) }),
		"variables": spec(func(s *agentpb.Spec) {
			for i := range 20000 {
				s.Process.Env = append(s.Process.Env, fmt.Sprintf("VARIABLE_%d=%s", i, strings.Repeat("x", 40)))
			}
		}),
		"groups": spec(func(s *agentpb.Spec) {
			s.Process.User = &agentpb.User{}
			for i := range 50000 {
				s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(i))
			}
		}),
		"annotations": spec(func(s *agentpb.Spec) {
			s.Annotations = map[string]string{}
			for i := range 20000 {
				s.Annotations[fmt.Sprint(i)] = ""
			}
		}),
		"empty hooks": spec(func(s *agentpb.Spec) {
			s.Hooks = &agentpb.Hooks{}
			for range 20000 {
				s.Hooks.Prestart = append(s.Hooks.Prestart, &agentpb.Hook{})
			}
		}),
		"device rules": spec(func(s *agentpb.Spec) {
			s.Linux.Resources = &agentpb.LinuxResources{}
			for range 20000 {
				s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, &agentpb.LinuxDeviceCgroup{Major: -1})
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			mt := (&agentpb.CreateContainerRequest{}).ProtoReflect().Type()
			s, err := Scan(mt, wire)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			m, err := s.Decode()
			if err != nil {
				t.Fatal(err)
			}
			input, err := Input(m)
			if err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			taken := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			runtime.KeepAlive(m)
			runtime.KeepAlive(input)
			t.Logf("%d bytes weigh %d, and take %d: %.2f", len(wire), s.Weight, taken, float64(s.Weight)/float64(taken))
			if s.Weight < taken || s.Weight > 4*taken {
				t.Errorf("%d bytes weigh %d, and take %d", len(wire), s.Weight, taken)
			}
		})
	}
}
