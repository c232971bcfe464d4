// SPDX-License-Identifier: Apache-2.0

// Package guesttest boots guests that have policyd installed, in QEMU, and lets the tests of package guest run in them.
//
// Its tests need root, QEMU, swtpm, a kernel and a Debian tree; "make guest-test" gets those and runs them. Otherwise they
// skip themselves.
//
// A guest is a Debian cloud kernel, an initial RAM disk (stage1) and, but for AGENT_INIT=yes, an ext4 root filesystem on a
// disk, opened by dm-verity with a tree of package verity and the root hash on the kernel command line. Behind policyd is a
// fake agent. Each guest has a TPM of its own (swtpm), so that its PCRs begin at zero, a console, and a second serial port on
// which the tests in the guest report as go test prints it.
//
// What speaks to policyd is in the guest too, over the vsock loopback, whose context id is 1: such runs set vsock_peers to
// [1, 2], and say so on the console. The host's own end of vsock would need /dev/vhost-vsock.
package guesttest
