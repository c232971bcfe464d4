// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/internal/emulator/cri"
)

// sandboxUser is the user of the pause container: the pod's, else its image's. It gets none of the pod's further groups.
func sandboxUser(c cri.Sandbox, pause Image) (specs.User, error) {
	user, err := userString("", c.RunAsUser, c.RunAsGroup)
	if err != nil {
		return specs.User{}, err
	}
	if user == "" {
		user = pause.Config.User
	}
	return lookUp(user, pause)
}

// containerUser is the user of a container with all its groups.
func containerUser(s cri.Security, image Image) (specs.User, error) {
	user, err := userString(s.RunAsUserName, s.RunAsUser, s.RunAsGroup)
	if err != nil {
		return specs.User{}, err
	}
	if user == "" {
		user = image.Config.User
	}
	out, err := lookUp(user, image)
	if err != nil {
		return specs.User{}, err
	}
	if s.StrictGroups {
		out.AdditionalGids = []uint32{out.GID}
	}
	for _, gid := range s.SupplementalGroups {
		out.AdditionalGids = append(out.AdditionalGids, uint32(gid))
	}
	slices.Sort(out.AdditionalGids)
	out.AdditionalGids = slices.Compact(out.AdditionalGids)
	return out, nil
}

func userString(name string, uid, gid *int64) (string, error) {
	if uid != nil {
		name = strconv.FormatInt(*uid, 10)
	}
	if gid == nil {
		return name, nil
	}
	if name == "" {
		return "", fmt.Errorf("%w: a group without a user", ErrRefused)
	}
	return name + ":" + strconv.FormatInt(*gid, 10), nil
}

func lookUp(user string, image Image) (specs.User, error) {
	id, err := image.Accounts.Identity(user)
	if err != nil {
		return specs.User{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.AdditionalGIDs}, nil
}
