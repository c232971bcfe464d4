// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/x509"
	"time"

	sevtrust "github.com/google/go-sev-guest/verify/trust"
	tdxtrust "github.com/google/go-tdx-guest/verify/trust"
)

// Options say whom a verifier trusts. The zero value trusts AMD's and Intel's embedded roots, no attestation key, and no
// debug guest, and stays off the network.
type Options struct {
	// Now is the time at which certificates must be valid; zero means the present.
	Now time.Time
	// AllowDebug accepts a guest whose memory the host can read and write.
	AllowDebug bool
	// Reference is what the guest may be; for a TPM with an HCL report, what the paravisor may be. Without it a verification cannot
	// say in which guest the policy is bound.
	Reference Reference
	// TrustAK accepts a TPM quote without asking who holds its attestation key.
	TrustAK bool
	// Fetch downloads missing certificates, and the vendors' revocation lists and TCB status. Without it a verification says in
	// its notes that it did not look at those.
	Fetch bool
	// SNPRoots replaces AMD's roots, by product line; TDXRoots Intel's. AKRoots are the roots of attestation and endorsement key
	// certificates, for which there is no default.
	SNPRoots map[string][]*sevtrust.AMDRootCerts
	TDXRoots *x509.CertPool
	AKRoots  *x509.CertPool
	// SNPGetter and TDXGetter replace the downloads of Fetch.
	SNPGetter sevtrust.HTTPSGetter
	TDXGetter tdxtrust.HTTPSGetter
}

func (o Options) now() time.Time {
	if o.Now.IsZero() {
		return time.Now()
	}
	return o.Now
}

// skipNetwork says what is not looked at without the network.
func (r *Result) skipNetwork() {
	r.skip("revocation", "revocation and TCB status were not checked, which needs the network")
	r.skip("tcb-status", "")
}
