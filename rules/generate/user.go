// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
	"portcullis/rules/policydata"
)

// who is what the manifest and the image's configuration say of the user.
type who struct {
	name   string // from the image, "" when uid says it
	uid    uint32
	gid    *uint32
	groups []uint32
	merge  bool // groups of the image are added
	field  string
	source string // field of the manifest that says the user, "" for the image
}

// users sets who the process of a container runs as, and whom it may run as instead: with images on the node too, runtimes know
// their accounts, or do not.
func (b *builder) users(ctx context.Context, c placed, image *images.Image, out *policydata.Container) error {
	w, err := b.asked(c, image.Config.User)
	if err != nil {
		return err
	}
	if out.OCI.Process.User, err = b.user(ctx, c, w, image); err != nil {
		return err
	}
	plain := userOf(images.Identity{UID: w.uid}, w)
	if b.settings().Generate.NodeImages && w.name == "" && !reflect.DeepEqual(plain, out.OCI.Process.User) {
		out.OtherUsers = []policydata.User{plain}
	}
	return nil
}

// user returns who the process of a container runs as, by what was asked for.
func (b *builder) user(ctx context.Context, c placed, w who, image *images.Image) (policydata.User, error) {
	nonRoot := b.nonRoot(c)
	if nonRoot != "" && w.name != "" {
		return policydata.User{}, b.pod.fault(nonRoot, fmt.Sprintf("is true, and the image of container %s runs as %q, a name of which "+
			"the kubelet cannot know that it is not root; set securityContext.runAsUser to its number%s", c.Name, w.name, numberOf(ctx, image, w.name)))
	}
	id, err := b.identity(ctx, w, image)
	if err != nil {
		return policydata.User{}, err
	}
	if nonRoot != "" && id.UID == 0 {
		from := fmt.Sprintf("as its image says (User is %q)", image.Config.User)
		if w.source != "" {
			from = "as " + w.source + " says"
		}
		return policydata.User{}, b.pod.fault(nonRoot, fmt.Sprintf("is true, and container %s runs as user 0, root, %s; "+
			"set securityContext.runAsUser to another number", c.Name, from))
	}
	return userOf(id, w), nil
}

// userOf puts together what was found and what was asked for.
func userOf(id images.Identity, w who) policydata.User {
	gid := id.GID
	if w.gid != nil {
		gid = *w.gid
	}
	groups := append([]uint32{gid}, w.groups...)
	if w.merge {
		// The image's groups hold the user's own group, which another replaces.
		for _, g := range id.AdditionalGIDs {
			if g != id.GID {
				groups = append(groups, g)
			}
		}
	}
	slices.Sort(groups)
	return policydata.User{UID: id.UID, GID: gid, AdditionalGids: slices.Compact(groups)}
}

// identity looks the user up where the runtime does: in the image, or nowhere when the image is pulled only inside the guest.
func (b *builder) identity(ctx context.Context, w who, image *images.Image) (images.Identity, error) {
	user := w.name
	if user == "" {
		user = strconv.FormatUint(uint64(w.uid), 10)
	}
	if g := b.settings().Generate; g.ImageFrom != policydata.GuestPull || g.NodeImages {
		id, err := image.Identity(ctx, user, images.Always)
		if err != nil {
			return images.Identity{}, fmt.Errorf("%s: %w", b.pod.fault(w.field, "cannot resolve the user"), err)
		}
		return id, nil
	}
	if w.name == "" {
		return images.Identity{UID: w.uid}, nil
	}
	// The host does not have the image, so its runtime cannot know the name.
	hint := "securityContext.runAsUser and runAsGroup"
	if id, err := image.Identity(ctx, user, images.Always); err == nil {
		hint = fmt.Sprintf("securityContext: {runAsUser: %d, runAsGroup: %d}", id.UID, id.GID)
	}
	return images.Identity{}, b.pod.fault(w.field,
		fmt.Sprintf("has an image with the user %q, a name that nobody outside the guest can resolve; set %s", w.name, hint))
}

// asked combines the pod's and the container's security context; the container's goes first, then the pod's, then the image.
func (b *builder) asked(c placed, imageUser string) (who, error) {
	pod, own := b.pod.security(), c.security()
	w := who{field: c.field, merge: pod.SupplementalGroupsPolicy == nil || *pod.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyMerge}
	uid, gid := cmp.Or(own.RunAsUser, pod.RunAsUser), cmp.Or(own.RunAsGroup, pod.RunAsGroup)
	var err error
	if uid != nil {
		w.source = "spec.securityContext.runAsUser"
		if own.RunAsUser != nil {
			w.source = c.field + ".securityContext.runAsUser"
		}
		w.uid, err = b.id(*uid, c.field)
	} else {
		w.name, w.uid = imageUID(imageUser)
	}
	if err != nil {
		return who{}, err
	}
	if gid != nil {
		n, err := b.id(*gid, c.field)
		if err != nil {
			return who{}, err
		}
		w.gid = &n
	}
	w.groups, err = b.podGroups(pod)
	return w, err
}

// podGroups returns the groups that the pod gives to all of its containers.
func (b *builder) podGroups(pod *corev1.PodSecurityContext) ([]uint32, error) {
	all := slices.Clone(pod.SupplementalGroups)
	if pod.FSGroup != nil {
		all = append(all, *pod.FSGroup)
	}
	var groups []uint32
	for _, g := range all {
		n, err := b.id(g, "spec")
		if err != nil {
			return nil, err
		}
		groups = append(groups, n)
	}
	return groups, nil
}

func (b *builder) id(n int64, field string) (uint32, error) {
	if n < 0 || n >= math.MaxInt32 {
		return 0, b.pod.fault(field+".securityContext", fmt.Sprintf("has the id %d, which Kubernetes refuses", n))
	}
	return uint32(n), nil
}

// imageUID reads the user of an image. The kubelet passes on only the part before the colon.
func imageUID(user string) (name string, uid uint32) {
	user, _, _ = strings.Cut(user, ":")
	if user == "" {
		return "", 0
	}
	if n, err := strconv.ParseUint(user, 10, 32); err == nil && n < math.MaxUint32 {
		return "", uint32(n)
	}
	return user, 0
}

// nonRoot returns the field by which the kubelet will insist on a user who is not root, "" if it will not.
func (b *builder) nonRoot(c placed) string {
	field, asked := c.field+".securityContext.runAsNonRoot", c.security().RunAsNonRoot
	if asked == nil {
		field, asked = "spec.securityContext.runAsNonRoot", b.pod.security().RunAsNonRoot
	}
	if !isTrue(asked) {
		return ""
	}
	return field
}

// numberOf says which number a name of the image's accounts has, "" when they cannot be read.
func numberOf(ctx context.Context, image *images.Image, name string) string {
	id, err := image.Identity(ctx, name, images.Always)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(", which is %d", id.UID)
}

// sandboxUsers returns who the pause process runs as, and whom it may run as instead: runtimes take the user of whatever pause
// image the node has, and none gives the pause process the pod's groups.
func (b *builder) sandboxUsers() (policydata.User, []policydata.User, error) {
	pod := b.pod.security()
	w := who{field: "spec"}
	if pod.RunAsGroup != nil {
		n, err := b.id(*pod.RunAsGroup, "spec")
		if err != nil {
			return policydata.User{}, nil, err
		}
		w.gid = &n
	}
	if pod.RunAsUser != nil {
		uid, err := b.id(*pod.RunAsUser, "spec")
		return userOf(images.Identity{UID: uid}, w), nil, err
	}
	users := slices.Clone(b.settings().Generate.PauseUsers)
	for i, u := range users {
		if w.gid != nil {
			users[i] = userOf(images.Identity{UID: u.UID, GID: u.GID}, w)
		}
	}
	return users[0], users[1:], nil
}
