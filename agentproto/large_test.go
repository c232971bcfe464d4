// SPDX-License-Identifier: Apache-2.0

package agentproto_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
)

// A large field is decoded as any other, wherever it stands and however often.
func TestLargeBytesDecodeAsSmallOnesDo(t *testing.T) {
	big := func(b byte) []byte { return bytes.Repeat([]byte{b}, 100<<10) }
	data := func(wire []byte, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(wire, 3, protowire.BytesType), value)
	}
	id := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "app")
	exec := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "exec")
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, wire := range map[string][]byte{
		"last":              data(join(id, exec), big(1)),
		"first":             join(data(nil, big(2)), id, exec),
		"in between":        join(data(id, big(3)), exec),
		"twice":             data(data(id, big(4)), big(5)),
		"large, then small": data(data(id, big(6)), []byte("x")),
		"small, then large": data(data(id, []byte("x")), big(7)),
		"alone":             data(nil, big(8)),
	} {
		t.Run(name, func(t *testing.T) {
			mt, _ := agentproto.MessageByName("WriteStreamRequest")
			got, err := agentproto.Decode(mt, bytes.Clone(wire))
			if err != nil {
				t.Fatal(err)
			}
			var want agentpb.WriteStreamRequest
			if err := proto.Unmarshal(wire, &want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, &want) {
				t.Errorf("id %q, %d bytes; want %q, %d", got.(*agentpb.WriteStreamRequest).GetContainerId(),
					len(got.(*agentpb.WriteStreamRequest).GetData()), want.GetContainerId(), len(want.GetData()))
			}
		})
	}
}
