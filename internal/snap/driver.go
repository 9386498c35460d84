// Package snap says what a backup is, what a storage driver promises, which
// volumes a cluster lies on, and holds the one procedure that takes a backup.
package snap

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"
)

// Driver speaks to one kind of storage. Drivers know neither each other nor the
// catalog; mounting is done above them.
type Driver interface {
	// Info says what the storage can do.
	Info() Info

	// Resolve finds the volumes that hold paths. A path of another kind of
	// storage is left out; each volume lists those that it claims. A volume
	// nested in another's paths is listed too, with a path of role Nested. A
	// path that is on this storage but can't be snapshotted is an error.
	Resolve(ctx context.Context, paths []Path) ([]Volume, error)

	// Snapshot cuts volumes under one name: all or nothing, at one instant
	// where the storage can, otherwise one after another in the order given.
	// Under a name that exists it returns the set that is there. It may return
	// before the set is durable: Commit makes it so.
	Snapshot(ctx context.Context, name string, volumes []Volume, metadata Metadata) (Set, error)

	// Commit makes a set of volumes durable and adds to it what is known only now
	// that the server has left backup mode. A storage that can't carry metadata
	// drops it.
	Commit(ctx context.Context, volumes []Volume, set Set, metadata Metadata) error

	// List finds pgsnap's own snapshots of volumes, whole or half made.
	List(ctx context.Context, volumes []Volume) ([]Snapshot, error)

	// Delete removes one snapshot and what is left of a half-made one. An absent
	// one is success; one in use is an error that names its user. What does not
	// carry pgsnap's mark is never touched.
	Delete(ctx context.Context, volume Volume, name string) error

	// Clone makes a writable copy of a snapshot, named name, for target: a path
	// that does not exist yet, in a directory that does. Either the clone is then
	// there already, or it says what to mount there. The snapshot stays as it is.
	Clone(ctx context.Context, snapshot Snapshot, name, target string) (Clone, error)

	// Release removes a clone, which is not mounted any more, also one whose
	// making was interrupted, of which only Driver, Name, SnapshotID and Target are
	// known. An absent one is success.
	Release(ctx context.Context, clone Clone) error
}

// ErrNoSnapshot is that a snapshot which a backup names is not there.
var ErrNoSnapshot = errors.New("the snapshot does not exist")

// Info is what a driver's storage can do. A value that is false is something
// that pgsnap must do without, never something silently not done.
type Info struct {
	// Name is what configuration and catalog call the driver.
	Name string `json:"name"`
	// Instant: a volume's snapshot is the volume at one instant. Without it, it
	// is a copy made over a while, which only backup mode's WAL makes whole.
	Instant bool `json:"instant"`
	// Metadata: snapshots carry metadata, so that a lost catalog can be rebuilt.
	Metadata bool `json:"metadata"`
}

// Role is what a path is to its cluster.
type Role string

// The roles of paths.
const (
	DataDirectory Role = "data"
	WALDirectory  Role = "wal"
	Tablespace    Role = "tablespace"
	// Nested is a file system or subvolume below one of the others.
	Nested Role = "nested"
)

// Path is one directory of a cluster that a backup must cover: absolute, with
// every symbolic link followed.
type Path struct {
	Role Role   `json:"role"`
	Path string `json:"path"`
	// OID is the tablespace's, for role Tablespace.
	OID uint32 `json:"oid,omitempty"`
}

// Volume is what one storage snapshot covers.
type Volume struct {
	Driver string `json:"driver"`
	// ID is the storage's own name for it: a dataset, a device, a directory.
	ID string `json:"id"`
	// Root is the directory at which the volume's own root is visible.
	Root string `json:"root"`
	// Place is where the driver keeps the volume's snapshots, for storage on which
	// they are directories somewhere; empty elsewhere.
	Place string `json:"place,omitempty"`
	// Paths are the cluster's directories that lie in it, at or below Root.
	Paths []Path `json:"paths"`
	// Inside says, of paths that are not to be found so, where they lie below the
	// volume's own root: those at another mount of it, or at a bind mount of a part.
	Inside map[string]string `json:"inside,omitempty"`
}

// Relative is where a path of the volume lies below the volume's own root; "." for
// the root itself.
func (v Volume) Relative(path string) (string, error) {
	if inside, known := v.Inside[path]; known {
		return filepath.Clean(inside), nil
	}
	relative, err := filepath.Rel(v.Root, path)
	if err == nil && !filepath.IsLocal(relative) {
		err = errors.New(path + " is not below " + v.Root)
	}
	return relative, err
}

// Holds tells whether a path of that role lies in the volume.
func (v Volume) Holds(role Role) bool {
	for _, path := range v.Paths {
		if path.Role == role {
			return true
		}
	}
	return false
}

// Snapshot is one volume at one instant (or, without Info.Instant, over one
// backup window).
type Snapshot struct {
	Driver string `json:"driver"`
	// VolumeID is the volume's, as the driver names it.
	VolumeID string `json:"volume"`
	// Name is the same for all snapshots of a backup.
	Name string `json:"name"`
	// ID is the storage's own full name for it.
	ID string `json:"id"`
	// Complete is false for one whose making was interrupted.
	Complete bool `json:"complete"`
	// CutAt is when it was cut, by this host's clock.
	CutAt time.Time `json:"cut_at"`
	// Directory is where the content of the volume's root can be read without
	// mounting anything; empty where it can't.
	Directory string `json:"directory,omitempty"`
}

// Set is the snapshots of one call, in the order in which they were cut.
type Set struct {
	Snapshots []Snapshot
	// Atomic: all of them are of the same instant.
	Atomic bool
}

// Metadata is what a snapshot carries for whoever finds it without a catalog.
// Its keys are lower-case words; a value may be long and hold any bytes.
type Metadata map[string]string

// Clone is a writable copy of a snapshot.
type Clone struct {
	Driver string `json:"driver"`
	// Name, SnapshotID and Target are those it was asked for with.
	Name       string `json:"name"`
	SnapshotID string `json:"snapshot"`
	Target     string `json:"target"`
	// ID is the storage's own name for it.
	ID string `json:"id,omitempty"`
	// Mount is what to mount at the target, or nil where the clone is there.
	Mount *Mount `json:"mount,omitempty"`
}

// Mount is a file system to be mounted.
type Mount struct {
	Source  string   `json:"source"`
	FSType  string   `json:"fs_type"`
	Options []string `json:"options,omitempty"`
}

// IsBelow tells whether path is dir or lies below it; both are clean and
// absolute.
func IsBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
