// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// evidence is what a verifier outside gets; each value is in the format of tpm2-tools.
type evidence struct {
	Quote, Signature, AK, Log, PCRs []byte
}

// signingKey is a restricted P-256 key, which signs nothing but what the TPM made.
var signingKey = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	}),
}

// pcr reads a register of the sha256 bank.
func pcr(t *testing.T, index int) []byte {
	t.Helper()
	value, err := hex.DecodeString(strings.TrimSpace(string(read(t, fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", index)))))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// sendEvidence takes a quote over the verifier's nonce and prints it; the verifier looks for it in what the serial port says.
func sendEvidence(t *testing.T, digest [32]byte) {
	nonce, err := hex.DecodeString(cmdline["guesttest.nonce"])
	if err != nil || len(nonce) == 0 {
		t.Fatalf("no nonce on the kernel command line: %v", err)
	}
	device, err := linuxtpm.Open("/dev/tpmrm0")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(signingKey)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	q, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(8, 14)}}},
	}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(evidence{Quote: q.Quoted.Bytes(), Signature: tpm2.Marshal(q.Signature), AK: tpm2.Marshal(key.OutPublic),
		Log: read(t, "/run/portcullis/measure.jsonseq"), PCRs: append(pcr(t, 8), pcr(t, 14)...)})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "EVIDENCE %x %s\n", digest, out)
}
