// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The ttrpc framing, as its PROTOCOL.md gives it: a header of 10 bytes (length of what follows and stream id, both big
// endian uint32; type; flags), then the message: an encoded Request or Response (request.proto). The gate frames by itself, since
// the library's server copies each payload twice, keeps any number of answers for a client that does not read, and does not tell
// when an answer has left.
const (
	headerLen    = 10
	typeRequest  = 1
	typeResponse = 2
	maxMessage   = 4 << 20 // bytes; what ttrpc servers take
)

// Fields of ttrpc's Request, Response and KeyValue messages.
const (
	fieldService  = 1
	fieldMethod   = 2
	fieldPayload  = 3
	fieldTimeout  = 4
	fieldMetadata = 5

	fieldStatus = 1
	fieldAnswer = 2

	fieldKey   = 1
	fieldValue = 2
)

// ErrFrame says that a peer does not speak ttrpc as it may; its connection is closed.
var ErrFrame = errors.New("unexpected ttrpc frame")

// putHeader writes the header of a frame whose message has length bytes into the first headerLen bytes of b.
func putHeader(b []byte, length int, id uint32, kind byte) {
	binary.BigEndian.PutUint32(b, uint32(length))
	binary.BigEndian.PutUint32(b[4:], id)
	b[8], b[9] = kind, 0 // flags concern streams only, and the agent has none
}

// envelope is an encoded Request, with its parts in the memory of the encoding. Its metadata is passed over: nobody judges it.
type envelope struct {
	service, method string
	payload         []byte
	timeout         time.Duration // 0 for none
}

// parseEnvelope reads a Request. Names that are no UTF-8 are those of no method.
func parseEnvelope(message []byte) (envelope, error) {
	var e envelope
	for rest := message; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return e, fmt.Errorf("request envelope: %w", ErrFrame)
		}
		rest = rest[n:]
		switch {
		case number == fieldTimeout && kind == protowire.VarintType:
			var nanos uint64
			nanos, n = protowire.ConsumeVarint(rest)
			e.timeout = max(0, time.Duration(nanos))
		case number >= fieldService && number <= fieldMetadata && number != fieldTimeout && kind == protowire.BytesType:
			n = e.consumeField(number, rest)
		default:
			return e, fmt.Errorf("request envelope has field %d of type %d: %w", number, kind, ErrFrame)
		}
		if n < 0 {
			return e, fmt.Errorf("request envelope field %d: %w", number, ErrFrame)
		}
		rest = rest[n:]
	}
	return e, nil
}

// consumeField reads a length-delimited field and returns its encoded length, negative when it is malformed.
func (e *envelope) consumeField(number protowire.Number, b []byte) int {
	value, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return n
	}
	switch number {
	case fieldService:
		e.service = name(value)
	case fieldMethod:
		e.method = name(value)
	case fieldPayload:
		e.payload = value
	case fieldMetadata:
		if !isKeyValue(value) {
			return -1
		}
	}
	return n
}

// maxName is longer than any name of a service or method.
const maxName = 128

// name is a service's or a method's; empty if it can be none.
func name(b []byte) string {
	if len(b) > maxName || !utf8.Valid(b) {
		return ""
	}
	return string(b)
}

// isKeyValue reports whether b is an encoded KeyValue.
func isKeyValue(b []byte) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || number != fieldKey && number != fieldValue || kind != protowire.BytesType {
			return false
		}
		_, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return false
		}
		b = b[n+m:]
	}
	return true
}

// appendRequest appends an encoded Request but for the payload's bytes, of which there are length: what follows is the payload.
func appendRequest(b []byte, service, method string, timeout time.Duration, length int) []byte {
	b = protowire.AppendTag(b, fieldService, protowire.BytesType)
	b = protowire.AppendString(b, service)
	b = protowire.AppendTag(b, fieldMethod, protowire.BytesType)
	b = protowire.AppendString(b, method)
	if timeout > 0 {
		b = protowire.AppendTag(b, fieldTimeout, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(timeout))
	}
	b = protowire.AppendTag(b, fieldPayload, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(length))
}

// parseResponse reads a Response: its payload, in the memory of the message, or the error that is its status.
func parseResponse(message []byte) (payload []byte, err error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType {
			return nil, fmt.Errorf("response: %w", ErrFrame)
		}
		value, m := protowire.ConsumeBytes(message[n:])
		if m < 0 {
			return nil, fmt.Errorf("response: %w", ErrFrame)
		}
		message = message[n+m:]
		switch number {
		case fieldAnswer:
			payload = value
		case fieldStatus:
			st := status.New(codes.OK, "").Proto()
			if proto.Unmarshal(value, st) != nil {
				return nil, fmt.Errorf("response: %w", ErrFrame)
			}
			err = status.FromProto(st).Err()
		default:
			return nil, fmt.Errorf("response has field %d: %w", number, ErrFrame)
		}
	}
	return payload, err
}

// appendAnswer appends an encoded Response with a message, or with an error's status.
func appendAnswer(b []byte, answer proto.Message, err error) ([]byte, error) {
	if err != nil {
		return proto.MarshalOptions{}.MarshalAppend(b, &ttrpc.Response{Status: status.Convert(err).Proto()})
	}
	size := proto.Size(answer)
	if size == 0 {
		return b, nil
	}
	b = protowire.AppendTag(b, fieldAnswer, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, answer)
}
