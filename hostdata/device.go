// SPDX-License-Identifier: Apache-2.0

package hostdata

// Device nodes of the two TEEs (linux/Documentation/virt/coco).
const (
	pathSNP = "/dev/sev-guest"
	pathTDX = "/dev/tdx_guest"
)

// Device is an open TEE guest device. Its Ioctl takes what the devices of
// go-sev-guest and go-tdx-guest take: for SNP *linuxabi.SnpUserGuestRequest, for
// TDX *linuxabi.TdxReportReq. It returns an error when the kernel does or when
// the response carries a status other than 0.
type Device interface {
	Ioctl(command uintptr, argument any) (uintptr, error)
	Close() error
}
