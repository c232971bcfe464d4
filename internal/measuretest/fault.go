// SPDX-License-Identifier: Apache-2.0

package measuretest

import (
	"encoding/binary"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Fault is what happens to one command in place of its ordinary answer. The zero Fault lets it pass.
type Fault struct {
	// RC is answered, and the command is not executed.
	RC tpm2.TPMRC
	// Before is returned, and the command is not executed: the connection broke on the way there.
	Before error
	// After is returned although the command was executed: the connection broke on the way back.
	After error
	// Reply is answered as it is, and the command is not executed.
	Reply []byte
}

// Faulty is a TPM in front of another. It is as safe for concurrent use as the other.
type Faulty struct {
	TPM transport.TPMCloser // may be nil when every command has a Fault
	// Inject is asked for each command, with its code.
	Inject func(tpm2.TPMCC) Fault
}

// Send implements [transport.TPM].
func (f *Faulty) Send(command []byte) ([]byte, error) {
	var fault Fault
	if len(command) >= 10 {
		fault = f.Inject(tpm2.TPMCC(binary.BigEndian.Uint32(command[6:10])))
	}
	switch {
	case fault.Before != nil:
		return nil, fault.Before
	case fault.Reply != nil:
		return fault.Reply, nil
	case fault.RC != 0:
		// TPM 2.0 Part 1, 18.4: tag TPM_ST_NO_SESSIONS, size, response code.
		return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(fault.RC)), nil
	}
	answer, err := f.TPM.Send(command)
	if fault.After != nil {
		return nil, fault.After
	}
	return answer, err
}

// Close closes the TPM behind.
func (f *Faulty) Close() error {
	if f.TPM == nil {
		return nil
	}
	return f.TPM.Close()
}

// Times returns an Inject that answers the first n commands of code cc with fault, and lets all others pass.
// It is safe for concurrent use.
func Times(n int, cc tpm2.TPMCC, fault Fault) func(tpm2.TPMCC) Fault {
	var mu sync.Mutex
	return func(got tpm2.TPMCC) Fault {
		mu.Lock()
		defer mu.Unlock()
		if got != cc || n <= 0 {
			return Fault{}
		}
		n--
		return fault
	}
}
