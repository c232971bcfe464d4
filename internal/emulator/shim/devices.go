// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"strings"

	"portcullis/agentproto/agentpb"
)

// vfioDir is where the host has devices that may be passed through.
const vfioDir = "/dev/vfio/"

// devices adds the disks and the passed-through devices of the container. None were
// recorded: their fields follow from Kata's documentation.
func (c *container) devices() {
	disks, vfio := 0, 0
	for _, d := range c.spec.Linux.Devices {
		switch {
		case strings.HasPrefix(d.Path, vfioDir):
			id := fmt.Sprintf("vfio%d", vfio)
			c.create.Devices = append(c.create.Devices, &agentpb.Device{
				Id: id, Type: "vfio-pci-gk", ContainerPath: d.Path, Options: []string{fmt.Sprintf("0000:4%d:00.0=0%d/01", vfio+1, vfio+1)},
			})
			c.create.OCI.Annotations["cdi.k8s.io/"+id] = fmt.Sprintf("nvidia.com/gpu=%d", vfio)
			vfio++
		case d.Type == "b":
			c.create.Devices = append(c.create.Devices, &agentpb.Device{Id: fmt.Sprintf("%02x/00", 16+disks), Type: "blk", ContainerPath: d.Path})
			disks++
		}
	}
}
