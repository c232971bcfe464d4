// SPDX-License-Identifier: Apache-2.0

// Package hostdata reads the value that the launcher bound to the running guest: HOST_DATA of an SEV-SNP guest (32 bytes) or
// MRCONFIGID of a TDX guest (48 bytes). Both are fixed at launch, never change, and appear in every attestation report, so a
// digest found there is a digest that a remote verifier sees too.
//
// [Detect] says which TEE this guest runs in, [Read] takes the value once at start, and [Field.Match] compares it with a digest.
// Nothing here weakens: a TEE that shows one sign of itself and cannot be read is an error, and so is everything that is not a
// clean "does not exist".
//
// # Where the value comes from
//
// SNP: one SNP_GET_REPORT request on /dev/sev-guest. The kernel authenticates the answer with the VM platform communication key
// (AES-256-GCM and a sequence number), so the host cannot forge it and the signature needs no check in here. A failed request
// makes the kernel give up that key for the life of the guest, which also takes it from the attestation agent: hence exactly one
// request.
//
// TDX: one TDX_CMD_GET_REPORT0 on /dev/tdx_guest, compared with the measurement that newer kernels show in sysfs. Both come from
// TDCALL into private memory. A quote is not used: its bytes pass through the host, which can return any.
//
// # What is used of the libraries
//
// Measured with Go 1.26, linux/amd64, -trimpath -ldflags="-s -w", on top of a program that links what policyd links anyway (OPA,
// ttrpc, protobuf, TOML; 23 253 154 bytes):
//
//	go-sev-guest/client/linuxabi + go-tdx-guest/client/linuxabi      +4 096 bytes   2 packages
//	go-sev-guest/abi                                                +49 152 bytes   6 packages
//	go-sev-guest/client + go-tdx-guest/client                      +151 552 bytes  16 packages
//
// This package and hostdata/initdata as they are, library parts and own code together, add 217 088 bytes to it.
//
// On a bare program (1 831 074 bytes) linuxabi adds nothing measurable, abi adds 2.4 MB and each client 2.5 MB, nearly all of it
// protobuf. The client packages also register five global flags (sev_guest_device_path, default_vmpl, self_throttle_duration,
// self_throttle_burst, tdx_guest_device_path), follow a symbolic link or a regular file in the device's place, sleep to throttle
// themselves, and bring configfs code that leaves entries behind. So the structure layouts, ioctl numbers and status words are
// theirs (linuxabi), the check of the SNP report's format is theirs (abi), and opening the node and the one system call are ours
// (device_linux.go). Our [Device] has their method, so that their fakes run against this package in its tests.
package hostdata
