// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"portcullis/agentproto/agentpb"
)

// record writes one length-delimited field.
func record(number protowire.Number, value ...byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func varint(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	// Numbers of CreateContainerRequest: 5 storages, 6 OCI; of Spec: 5 Mounts,
	// 7 Annotations, 8 Linux; of Linux: 8 Seccomp; of LinuxSeccomp: 4 Syscalls.
	unknown := varint(90, 1)
	annotation := append(record(1, 'k'), record(2, 'v')...)
	tests := map[string]struct {
		wire   []byte
		path   string
		number protowire.Number
		// hidden from CheckUnknown: the decoder drops it
		dropped bool
	}{
		"at the top":              {wire: unknown, number: 90},
		"behind known fields":     {wire: append(record(1, 'c'), unknown...), number: 90},
		"in a message":            {wire: record(6, unknown...), path: "OCI", number: 90},
		"in the second of a list": {wire: append(record(5), record(5, unknown...)...), path: "storages[1]", number: 90},
		"in a list in a message":  {wire: record(6, append(record(5), record(5, unknown...)...)...), path: "OCI.Mounts[1]", number: 90},
		"next to a oneof":         {wire: record(6, record(8, record(8, record(4, append(varint(3, 1), unknown...)...)...)...)...), path: "OCI.Linux.Seccomp.Syscalls[0]", number: 90},
		"in a map entry":          {wire: record(6, record(7, append(annotation, unknown...)...)...), path: "OCI.Annotations{}", number: 90, dropped: true},
		"of another wire type":    {wire: varint(1, 5), number: 1},
		"number 16 in a list":     {wire: record(5, varint(16, 5)...), path: "storages[0]", number: 16},
		"a group":                 {wire: []byte{0x63, 0x64}, number: 12},
		"map entry's wire type":   {wire: record(6, record(7, varint(1, 3)...)...), path: "OCI.Annotations{}", number: 1, dropped: true},
	}
	mt := messageType(t, "CreateContainerRequest")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(mt, test.wire)
			var got *UnknownFieldError
			if !errors.As(err, &got) || !errors.Is(err, ErrUnknownField) {
				t.Fatalf("Decode: got %v", err)
			}
			if got.Path != test.path || got.Number != test.number {
				t.Errorf("Decode: field %d at %q, want %d at %q", got.Number, got.Path, test.number, test.path)
			}
			m := mt.New().Interface()
			if err := proto.Unmarshal(test.wire, m); err != nil {
				t.Fatal(err)
			}
			err = CheckUnknown(m)
			if test.dropped {
				if err != nil {
					t.Errorf("CheckUnknown: %v", err)
				}
				return
			}
			if !errors.As(err, &got) || got.Path != test.path || got.Number != test.number {
				t.Errorf("CheckUnknown: got %v", err)
			}
		})
	}
}

func TestUnknownFieldErrorNamesThePlace(t *testing.T) {
	_, err := Decode(messageType(t, "CreateContainerRequest"), record(6, record(5, varint(90, 1)...)...))
	want := "decode grpc.CreateContainerRequest: unknown field 90 in OCI.Mounts[0] (grpc.Mount)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestUnknownFieldsInMapsOfMessagesAreFound(t *testing.T) {
	// CgroupStats.hugetlb_stats is map<string, HugetlbStats>, in StatsContainerResponse.cgroup_stats.
	entry := append(record(1, '2', 'M'), record(2, varint(9, 1)...)...)
	wire := record(1, record(5, entry...)...)
	mt := messageType(t, "StatsContainerResponse")
	var fromWire, fromMessage *UnknownFieldError
	if _, err := Decode(mt, wire); !errors.As(err, &fromWire) || fromWire.Number != 9 {
		t.Errorf("Decode: %v", err)
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(wire, m); err != nil {
		t.Fatal(err)
	}
	if err := CheckUnknown(m); !errors.As(err, &fromMessage) || fromMessage.Path != "cgroup_stats.hugetlb_stats{}" {
		t.Errorf("CheckUnknown: %v", err)
	}
}

func TestMalformedEncodingsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"cut tag":                 "80",
		"cut length":              "0a80",
		"cut string":              "0a0561",
		"cut message":             "320561",
		"cut varint":              "3880",
		"field number 0":          "0000",
		"string that is no UTF-8": "0a01ff",
		"malformed inner message": "32020a05",
	} {
		t.Run(name, func(t *testing.T) {
			wire, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Decode(messageType(t, "CreateContainerRequest"), wire)
			if err == nil {
				t.Fatalf("decoded %v", m)
			}
			if errors.Is(err, ErrUnknownField) {
				t.Errorf("reported as unknown field: %v", err)
			}
		})
	}
}

func TestPackedAndSingleElementsAreOneList(t *testing.T) {
	mt := messageType(t, "AddSwapRequest")
	for name, wire := range map[string][]byte{
		"packed": record(1, 1, 2), "single": append(varint(1, 1), varint(1, 2)...),
	} {
		m, err := Decode(mt, wire)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, _ := Encode(m); !bytes.Equal(got, record(1, 1, 2)) {
			t.Errorf("%s: encoded as %x", name, got)
		}
	}
}

func TestMessagesOfOtherAPIsAreRefused(t *testing.T) {
	foreign := wrapperspb.String("x")
	if _, err := Decode(foreign.ProtoReflect().Type(), nil); err == nil {
		t.Error("Decode took it")
	}
	if err := CheckUnknown(foreign); err == nil {
		t.Error("CheckUnknown took it")
	}
	if _, err := Input(foreign); err == nil {
		t.Error("Input took it")
	}
	if got := ContainerID(foreign); got != "" {
		t.Errorf("ContainerID is %q", got)
	}
}

func TestMethodTable(t *testing.T) {
	count := make(map[string]int)
	for _, m := range Methods() {
		count[m.Service]++
		found, ok := Lookup(m.Service, m.Name)
		if !ok || found != m {
			t.Errorf("Lookup(%s, %s) = %v, %v", m.Service, m.Name, found, ok)
		}
		for _, name := range []string{m.EntryPoint(), WireName(m.Request.Descriptor())} {
			if mt, ok := MessageByName(name); !ok || mt != m.Request {
				t.Errorf("MessageByName(%s) = %v, %v", name, mt, ok)
			}
		}
		if strings.Contains(m.EntryPoint(), ".") {
			t.Errorf("entry point %s", m.EntryPoint())
		}
	}
	if count["grpc.AgentService"] == 0 || count["grpc.Health"] == 0 {
		t.Errorf("found %v", count)
	}
	if _, ok := Lookup("grpc.AgentService", "Check"); ok {
		t.Error("found a method of another service")
	}
	if m, ok := Lookup("grpc.AgentService", "WriteStdin"); !ok || m.EntryPoint() != "WriteStreamRequest" {
		t.Errorf("WriteStdin is %v", m)
	}
	if _, ok := MessageByName("grpc.Nothing"); ok {
		t.Error("found a message that is not there")
	}
}

func TestContainerIDOfRequests(t *testing.T) {
	if got := ContainerID(&agentpb.StartContainerRequest{ContainerId: "c"}); got != "c" {
		t.Errorf("got %q", got)
	}
	if got := ContainerID(&emptypb.Empty{}); got != "" {
		t.Errorf("got %q", got)
	}
}
