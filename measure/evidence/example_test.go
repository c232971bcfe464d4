// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"

	"portcullis/measure/evidence"
)

// The report of a real processor, with the certificate of its chip: it is genuine, and no policy is bound in it.
func ExampleVerifySNP() {
	policy := []byte("package agent_policy\n")
	digest := sha256.Sum256(policy)
	result := evidence.VerifySNP(context.Background(), evidence.SNP{
		Report: testdata.AttestationBytes,
		Certs:  testdata.VcekBytes,
		Nonce:  []byte("the verifier's own, sent before"),
		Bound:  evidence.Bound{Alg: "sha256", Digest: digest[:]},
	}, evidence.Options{Now: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}) // without Now: today
	for _, check := range result.Checks {
		fmt.Println(check.Name, check.Verdict)
	}
	fmt.Println("in all:", result.Verdict, "exit code", result.ExitCode())
	// Output:
	// format pass
	// signature pass
	// firmware pass
	// debug fail
	// nonce fail
	// hostdata fail
	// measurement unknown
	// in all: fail exit code 1
}
