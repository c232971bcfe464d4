package gate

import (
	"errors"
	"fmt"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The ttrpc framing, as its PROTOCOL.md gives it: a header of 10 bytes (length of what follows and stream id, both big
// endian uint32; type; flags), then the message, for a request an encoded Request (request.proto).
const (
	headerLen   = 10
	typeRequest = 1
	maxMessage  = 4 << 20 // bytes; what ttrpc servers take
)

// Fields of ttrpc's Request and KeyValue messages.
const (
	fieldService  = 1
	fieldMethod   = 2
	fieldPayload  = 3
	fieldTimeout  = 4
	fieldMetadata = 5
	fieldKey      = 1
	fieldValue    = 2
)

// ErrFrame says that a peer does not speak ttrpc as a client may; its connection is closed.
var ErrFrame = errors.New("unexpected ttrpc frame")

// envelope is what the filter reads of an encoded Request.
type envelope struct{ service, method string }

// parseEnvelope accepts exactly what ttrpc's server will decode without an error, less fields that it would ignore: a
// request that it refused by itself would never reach the handler that gives the ticket back.
func parseEnvelope(message []byte) (envelope, error) {
	var e envelope
	for rest := message; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return e, fmt.Errorf("request envelope: %w", ErrFrame)
		}
		rest = rest[n:]
		if number == fieldTimeout && kind == protowire.VarintType {
			_, n = protowire.ConsumeVarint(rest)
		} else if number >= fieldService && number <= fieldMetadata && kind == protowire.BytesType {
			n = e.consumeField(number, rest)
		} else {
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
		e.service = string(value)
	case fieldMethod:
		e.method = string(value)
	case fieldMetadata:
		if proto.Unmarshal(value, &ttrpc.KeyValue{}) != nil {
			return -1
		}
	case fieldTimeout:
		return -1
	}
	return n
}

// ticketKey is the metadata key under which the filter tells the handler which frame a request came in.
const ticketKey = "portcullis-ticket"

// A ticket's number is attached in ticketDigits hexadecimal digits, so that it always takes ticketSuffix bytes.
const (
	ticketDigits = 16
	ticketSuffix = 2 + 2 + len(ticketKey) + 2 + ticketDigits
)

// appendTicket attaches a ticket's number to an encoded Request: metadata is a repeated field, so appending adds to it.
func appendTicket(message []byte, number uint64) []byte {
	return appendAttachment(message, fmt.Sprintf("%0*x", ticketDigits, number))
}

func appendAttachment(message []byte, value string) []byte {
	pair := protowire.AppendTag(nil, fieldKey, protowire.BytesType)
	pair = protowire.AppendString(pair, ticketKey)
	pair = protowire.AppendTag(pair, fieldValue, protowire.BytesType)
	pair = protowire.AppendString(pair, value)
	message = protowire.AppendTag(message, fieldMetadata, protowire.BytesType)
	return protowire.AppendBytes(message, pair)
}

// refusedService takes the place of a request that the filter refuses: its method answers RESOURCE_EXHAUSTED with the
// attached reason.
const (
	refusedService = "portcullis.Refused"
	refusedMethod  = "Refuse"
)

// appendRefusal appends an encoded Request for refusedService.
func appendRefusal(message []byte, reason error) []byte {
	message = protowire.AppendTag(message, fieldService, protowire.BytesType)
	message = protowire.AppendString(message, refusedService)
	message = protowire.AppendTag(message, fieldMethod, protowire.BytesType)
	message = protowire.AppendString(message, refusedMethod)
	return appendAttachment(message, reason.Error())
}
