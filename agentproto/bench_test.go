// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
)

// benchMessage decodes the vector that has every field of a message.
func benchMessage(b *testing.B, name string) (proto.Message, []byte) {
	b.Helper()
	for _, v := range vectors(b) {
		if v.Message != name || v.Case != "full" {
			continue
		}
		wire, err := hex.DecodeString(v.Wire)
		if err != nil {
			b.Fatal(err)
		}
		m, err := Decode(messageType(b, name), wire)
		if err != nil {
			b.Fatal(err)
		}
		return m, wire
	}
	b.Fatalf("no vector of %s", name)
	return nil, nil
}

func BenchmarkInput(b *testing.B) {
	for _, name := range []string{"CreateContainerRequest", "ExecProcessRequest", "StatsContainerRequest"} {
		b.Run(name, func(b *testing.B) {
			m, _ := benchMessage(b, "grpc."+name)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Input(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	stream := &agentpb.WriteStreamRequest{ContainerId: "c", Data: make([]byte, 512<<10)}
	for name, omit := range map[string][][]string{"with": nil, "without": {{"data"}}} {
		b.Run("WriteStreamRequest 512 KiB "+name+" data", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Input(stream, omit...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"CreateContainerRequest", "ExecProcessRequest"} {
		b.Run(name, func(b *testing.B) {
			_, wire := benchMessage(b, "grpc."+name)
			benchDecode(b, name, wire)
		})
	}
	b.Run("WriteStreamRequest 512 KiB", func(b *testing.B) {
		wire, err := Encode(&agentpb.WriteStreamRequest{ContainerId: "c", Data: make([]byte, 512<<10)})
		if err != nil {
			b.Fatal(err)
		}
		benchDecode(b, "WriteStreamRequest", wire)
	})
}

func benchDecode(b *testing.B, name string, wire []byte) {
	mt := messageType(b, name)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(mt, wire); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan is the part of Decode that finds unknown fields.
func BenchmarkScan(b *testing.B) {
	m, wire := benchMessage(b, "grpc.CreateContainerRequest")
	p, err := planOf(m.ProtoReflect().Descriptor())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("wire", func(b *testing.B) {
		for b.Loop() {
			if unknown, err := p.scan(wire, new(int64)); unknown != nil || err != nil {
				b.Fatal(unknown, err)
			}
		}
	})
	b.Run("message", func(b *testing.B) {
		for b.Loop() {
			if err := CheckUnknown(m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
