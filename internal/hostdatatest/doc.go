// SPDX-License-Identifier: Apache-2.0

// Package hostdatatest stands in for the hardware behind package hostdata: guest devices that answer as the kernel's do, and a
// root directory with the signs and disks of a confidential guest. Its reports are made by hand from the field tables of the
// firmware ABIs, not with the code under test. They carry no valid signature and no valid MAC, which nothing inside a guest looks
// at.
package hostdatatest
