// SPDX-License-Identifier: Apache-2.0

package initdata

// condition is a sentinel error with the stable word that goes to the caller of
// SetPolicy, into the status and into the event log.
type condition struct{ reason, text string }

func (c *condition) Error() string  { return c.text }
func (c *condition) Reason() string { return c.reason }

// The conditions that a caller tells apart. All but ErrNoDisk mean: stay closed.
var (
	// ErrNoDisk is returned when no disk carries initdata.
	ErrNoDisk error = &condition{"initdata-invalid", "no disk carries initdata"}
	// ErrInvalid is returned for a document, an annotation or an image that is not
	// exactly as it must be, and for two disks that carry one.
	ErrInvalid error = &condition{"initdata-invalid", "initdata is invalid"}
	// ErrRead is returned when a disk or a file could not be read, including when time ran out.
	ErrRead error = &condition{"initdata-invalid", "initdata could not be read"}
	// ErrAttached is returned when the disk could not be taken from its driver, so
	// that the host could still change what others read.
	ErrAttached error = &condition{"initdata-invalid", "initdata disk is still attached"}
	// ErrCopy is returned when a file that guest components read is not what the bound document says.
	ErrCopy error = &condition{"initdata-locked", "a copy of initdata differs from what was bound"}
	// ErrAppeared is returned for a copy or a disk of initdata in a guest that was started without.
	ErrAppeared error = &condition{"initdata-changed", "initdata appeared in a guest that was started without"}
	// ErrShortDigest is returned for a digest of fewer than MinDigest bytes.
	ErrShortDigest error = &condition{"digest-mismatch", "digest is too short"}
)
