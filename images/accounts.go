// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrUnknownUser says that a user or group name is not in the image's /etc/passwd or /etc/group, or that there are none.
// A runtime refuses to start such a container.
var ErrUnknownUser = errors.New("unknown user or group")

// Accounts are the users and groups of an image. A nil *Accounts knows nobody; only numbers can be resolved with it.
type Accounts struct {
	users  []account
	groups []group
}

type account struct {
	name     string
	uid, gid uint32
}

type group struct {
	name    string
	gid     uint32
	members []string
}

// Identity is who a process runs as.
type Identity struct {
	UID, GID       uint32
	AdditionalGIDs []uint32 // sorted, with GID, each once
}

// ParseAccounts reads the text of /etc/passwd and /etc/group. Lines that do not have exactly seven fields, or four, or
// whose ids are not numbers, name nobody.
func ParseAccounts(passwd, groups []byte) *Accounts {
	a := &Accounts{}
	for line := range strings.SplitSeq(string(passwd), "\n") {
		f := strings.Split(line, ":")
		if len(f) != 7 || f[0] == "" {
			continue
		}
		uid, uerr := strconv.ParseUint(f[2], 10, 32)
		gid, gerr := strconv.ParseUint(f[3], 10, 32)
		if uerr == nil && gerr == nil {
			a.users = append(a.users, account{name: f[0], uid: uint32(uid), gid: uint32(gid)})
		}
	}
	for line := range strings.SplitSeq(string(groups), "\n") {
		f := strings.Split(line, ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			g := group{name: f[0], gid: uint32(gid)}
			if f[3] != "" {
				g.members = strings.Split(f[3], ",")
			}
			a.groups = append(a.groups, g)
		}
	}
	return a
}

// Numeric says whether a user string ("" and "user[:group]" of an image's configuration) names user and, if it names one,
// group by number, so that no account is needed to resolve it.
func Numeric(user string) bool {
	u, g, grouped := strings.Cut(user, ":")
	_, uerr := parseID(u)
	_, gerr := parseID(g)
	return (u == "" || uerr == nil) && (!grouped || gerr == nil)
}

// Identity resolves "user[:group]". A name must be known. A number need not be: its group is then 0. The group is the one
// written, else the user's own; additional groups are the group itself and all that list the user as a member, but for a
// group of the user's own name (containerd leaves that out). The first line wins where two name the same user.
func (a *Accounts) Identity(user string) (Identity, error) {
	u, g, grouped := strings.Cut(user, ":")
	if u == "" {
		u = "0"
	}
	who, err := a.user(u)
	if err != nil {
		return Identity{}, fmt.Errorf("resolving user %q: %w", user, err)
	}
	id := Identity{UID: who.uid, GID: who.gid}
	if grouped {
		if id.GID, err = a.group(g); err != nil {
			return Identity{}, fmt.Errorf("resolving user %q: %w", user, err)
		}
	}
	id.AdditionalGIDs = append(a.memberships(who.name), id.GID)
	slices.Sort(id.AdditionalGIDs)
	id.AdditionalGIDs = slices.Compact(id.AdditionalGIDs)
	return id, nil
}

// user finds a user by number or name. A number is a number even if some user has it for a name.
func (a *Accounts) user(s string) (account, error) {
	uid, err := parseID(s)
	numeric := err == nil
	if errors.Is(err, strconv.ErrRange) {
		return account{}, fmt.Errorf("%s is not a user id", s)
	}
	if a != nil {
		for _, u := range a.users {
			if numeric && u.uid == uid || !numeric && u.name == s {
				return u, nil
			}
		}
	}
	if numeric {
		return account{uid: uid}, nil
	}
	return account{}, fmt.Errorf("%w: %q is not in /etc/passwd", ErrUnknownUser, s)
}

func (a *Accounts) group(s string) (uint32, error) {
	gid, err := parseID(s)
	if err == nil {
		return gid, nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is not a group id", s)
	}
	if a != nil {
		for _, g := range a.groups {
			if g.name == s {
				return g.gid, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: %q is not in /etc/group", ErrUnknownUser, s)
}

// memberships are the groups that list the user called name; nobody lists a user without a name.
func (a *Accounts) memberships(name string) []uint32 {
	var gids []uint32
	if a == nil || name == "" {
		return nil
	}
	for _, g := range a.groups {
		if g.name != name && slices.Contains(g.members, name) {
			gids = append(gids, g.gid)
		}
	}
	return gids
}

// parseID accepts what the kernel accepts: 32 bits, of which all ones means "no id".
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = &strconv.NumError{Func: "ParseUint", Num: s, Err: strconv.ErrRange}
	}
	return uint32(n), err
}
