// Package reflink is the driver for any directory on any file system, without
// privileges: a snapshot is a copy of the files, which shares their blocks where
// the file system can (XFS, Btrfs, bcachefs …) and is a full copy elsewhere.
//
// It is not of one instant. In backup mode that is no harm: the WAL from the
// start to the stop makes the copy whole, as it does for pg_basebackup.
package reflink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/beside"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
)

// Name is what configuration and catalog call the driver.
const Name = "reflink"

const (
	controlFile = "global/pg_control"
	// A control file may be read while the server writes it; the next reading
	// finds it whole.
	controlTries = 20
	controlPause = 10 * time.Millisecond
)

// Driver is a snap.Driver.
type Driver struct {
	// Directory holds all snapshots, if set; otherwise they are beside the
	// directories that they are copies of.
	Directory string
}

// Info says what the driver can do.
func (d Driver) Info() snap.Info {
	return snap.Info{Name: Name, Instant: false, Metadata: true}
}

// Resolve claims every path: each is a volume of its own, but for those that lie
// in another.
func (d Driver) Resolve(_ context.Context, paths []snap.Path) ([]snap.Volume, error) {
	byLength := slices.Clone(paths)
	slices.SortStableFunc(byLength, func(a, b snap.Path) int { return cmp.Compare(len(a.Path), len(b.Path)) })
	var volumes []snap.Volume
	for _, path := range byLength {
		within := slices.IndexFunc(volumes, func(v snap.Volume) bool { return snap.IsBelow(path.Path, v.Root) })
		if within >= 0 {
			volumes[within].Paths = append(volumes[within].Paths, path)
			continue
		}
		volume := snap.Volume{Driver: Name, ID: path.Path, Root: path.Path, Place: d.Directory, Paths: []snap.Path{path}}
		if volume.Place == "" {
			volume.Place = beside.Outside(path.Path, paths)
		}
		if err := unix.Access(volume.Place, unix.W_OK|unix.X_OK); err != nil {
			return nil, fault.Wrap(err, fault.Storage, "set directory in [storage.reflink] to one that pgsnap may write, best on the same file system",
				"keep snapshots of %s in %s", path.Path, volume.Place)
		}
		volumes = append(volumes, volume)
	}
	return volumes, nil
}

// Snapshot copies the volumes, one after another.
func (d Driver) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (set snap.Set, err error) {
	defer func() {
		if err != nil {
			set, err = snap.Set{}, errors.Join(err, d.deleteAll(name, volumes))
		}
	}()
	for _, volume := range volumes {
		shelf := beside.Of(volume)
		found, err := shelf.Find(name)
		if err == nil && !found.Complete {
			err = errors.Join(d.delete(volume, name), snap.ErrNoSnapshot)
		}
		if errors.Is(err, snap.ErrNoSnapshot) {
			found, err = d.copy(ctx, shelf, name, volume, metadata)
		}
		if err != nil {
			return set, err
		}
		set.Snapshots = append(set.Snapshots, found)
	}
	return set, nil
}

func (d Driver) copy(ctx context.Context, shelf beside.Shelf, name string, volume snap.Volume, metadata snap.Metadata) (snap.Snapshot, error) {
	if err := shelf.Begin(name, metadata); err != nil {
		return snap.Snapshot{}, err
	}
	if err := copyVolume(ctx, volume, shelf.Content(name)); err != nil {
		return snap.Snapshot{}, err
	}
	return shelf.Cut(name, metadata)
}

// copyVolume copies what a restored cluster needs of a volume, and pg_control
// last, so that it is never older than a file that the server wrote before it.
func copyVolume(ctx context.Context, volume snap.Volume, to string) error {
	var control []string
	// inCluster turns a path below the volume into one below the data directory
	// or tablespace that it belongs to.
	inCluster := func(relative string) (snap.Role, string) {
		full := filepath.Join(volume.Root, relative)
		role, below := snap.Role(""), relative
		longest := -1
		for _, path := range volume.Paths {
			if rest, err := filepath.Rel(path.Path, full); err == nil && filepath.IsLocal(rest) && len(path.Path) > longest {
				role, below, longest = path.Role, rest, len(path.Path)
			}
		}
		return role, below
	}
	tree := treeCopy{
		from: volume.Root, to: to,
		skip: func(relative string) bool {
			role, below := inCluster(relative)
			if role == snap.DataDirectory && below == controlFile {
				control = append(control, relative)
				return true
			}
			return pgctl.TransientFile(below) || filepath.Base(relative) == beside.Folder
		},
		skipContent: func(relative string) bool {
			role, below := inCluster(relative)
			return role == snap.WALDirectory || role == snap.DataDirectory && pgctl.TransientContent(below)
		},
	}
	if err := tree.run(ctx); err != nil {
		return err
	}
	for _, relative := range control {
		if err := copyControlFile(filepath.Join(volume.Root, relative), filepath.Join(to, relative)); err != nil {
			return err
		}
	}
	return nil
}

func copyControlFile(from, to string) error {
	var data []byte
	var err error
	for range controlTries {
		if data, err = os.ReadFile(from); err != nil {
			return err
		}
		if _, err = pgctl.ParseControlFile(data); err == nil {
			break
		}
		time.Sleep(controlPause)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		return err
	}
	return own(to, info)
}

// Commit flushes the file systems with the copies.
func (d Driver) Commit(_ context.Context, volumes []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	for _, snapshot := range set.Snapshots {
		if err := flush(snapshot.ID); err != nil {
			return err
		}
	}
	return beside.Commit(volumes, set, metadata)
}

func flush(path string) error {
	handle, err := os.Open(path)
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := unix.Syncfs(int(handle.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

// List finds the snapshots beside the volumes.
func (d Driver) List(_ context.Context, volumes []snap.Volume) ([]snap.Snapshot, error) {
	return beside.List(volumes)
}

// Delete removes the copy.
func (d Driver) Delete(_ context.Context, volume snap.Volume, name string) error {
	return d.delete(volume, name)
}

func (d Driver) delete(volume snap.Volume, name string) error {
	return beside.Of(volume).Delete(name, os.RemoveAll)
}

func (d Driver) deleteAll(name string, volumes []snap.Volume) error {
	var failures error
	for _, volume := range volumes {
		failures = errors.Join(failures, d.delete(volume, name))
	}
	return failures
}

// Clone copies the snapshot's files to target.
func (d Driver) Clone(ctx context.Context, snapshot snap.Snapshot, name, target string) (snap.Clone, error) {
	clone := snap.Clone{Driver: Name, Name: name, SnapshotID: snapshot.ID, Target: target, ID: target}
	if _, err := os.Stat(snapshot.ID); errors.Is(err, fs.ErrNotExist) {
		return clone, fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	none := func(string) bool { return false }
	tree := treeCopy{from: snapshot.ID, to: target, skip: none, skipContent: none}
	return clone, tree.run(ctx)
}

// Release removes the copied files.
func (d Driver) Release(_ context.Context, clone snap.Clone) error {
	return os.RemoveAll(clone.Target)
}
