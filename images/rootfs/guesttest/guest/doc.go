// SPDX-License-Identifier: Apache-2.0

// Package guest is the tests that run inside the guest: compiled once by "go test -c", put into its root filesystem, and
// started by its init system, they report over a serial port in the words of go test.
//
// The kernel command line tells which and how:
//
//	guesttest.run=REGEXP    the tests to run
//	guesttest.peers=1,2     policyd's vsock_peers, in place of the image's; 1 is the guest itself over the loopback
//	guesttest.measured=HEX  PCR 8 is extended by this before policyd starts
//	guesttest.nonce=HEX     what a quote is taken over
//	guesttest.code=WORD     the reason that a denial must show
//	guesttest.accel=kvm     time bounds hold
//
// Elsewhere every test skips itself.
package guest
