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
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/beside"
	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
)

// Name is what configuration and catalog call the driver.
const Name = "reflink"

const (
	controlPath = "global/pg_control"
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
	for _, path := range paths {
		if _, err := os.Stat(path.Path); err != nil {
			return nil, err
		}
	}
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
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
			if err := checkSameFileSystem(table, path.Path, volume.Place); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(paths, func(p snap.Path) bool { return snap.IsBelow(volume.Place, p.Path) }) {
			return nil, fault.New(fault.Usage, "set directory in [storage.reflink] to one outside of the cluster",
				"%s, where snapshots of %s would be kept, is part of the cluster", volume.Place, path.Path)
		}
		if err := unix.Access(volume.Place, unix.W_OK|unix.X_OK); err != nil {
			return nil, fault.Wrap(err, fault.Storage, "set directory in [storage.reflink] to one that pgsnap may write, best on the same file system",
				"keep snapshots of %s in %s", path.Path, volume.Place)
		}
		volumes = append(volumes, volume)
	}
	return volumes, nil
}

// checkSameFileSystem refuses to fill another file system, which may be the
// root's, with full copies that nobody asked for.
func checkSameFileSystem(table mount.Table, path, place string) error {
	ofPath, err := table.Of(path)
	if err != nil {
		return err
	}
	ofPlace, err := table.Of(place)
	if err != nil || ofPath.ID == ofPlace.ID {
		return err
	}
	return fault.New(fault.Storage, "set directory in [storage.reflink] to a place that has room for them",
		"%s is a file system of its own: snapshots of it would be full copies on another, in %s", path, place)
}

// Snapshot copies the volumes, one after another.
func (d Driver) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (snap.Set, error) {
	snapshots, err := maker(ctx).Snapshot(ctx, name, volumes, metadata)
	return snap.Set{Snapshots: snapshots}, err
}

func maker(ctx context.Context) beside.Maker {
	return beside.Maker{
		Cut: func(volume snap.Volume, content string) error {
			err := copyVolume(ctx, volume, content)
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				return fault.Wrap(err, fault.Storage, "make room there, or set directory in [storage.reflink] to a place that has it",
					"copy %s to %s", volume.Root, volume.Place)
			}
			return err
		},
		Remove: os.RemoveAll, Gradual: true,
	}
}

// copyVolume copies what a restored cluster needs of a volume, and pg_control
// last, so that it is never older than a file that the server wrote before it.
func copyVolume(ctx context.Context, volume snap.Volume, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
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
		from: volume.Root, to: to, changing: true,
		skip: func(relative string) bool {
			_, below := inCluster(relative)
			return pgctl.TransientFile(below) || filepath.Base(relative) == beside.Folder
		},
		skipContent: func(relative string) bool {
			role, below := inCluster(relative)
			return role == snap.WALDirectory || role == snap.DataDirectory && pgctl.TransientContent(below)
		},
		isControl: func(relative string) bool {
			role, below := inCluster(relative)
			return role == snap.DataDirectory && below == controlPath
		},
	}
	return tree.run(ctx)
}

// copy copies the control file.
func (c controlFile) copy(ctx context.Context) error {
	var data []byte
	var info fs.FileInfo
	for try := 0; ; try++ {
		source, found, err := c.in.openFile(c.name)
		if err != nil {
			return err
		}
		info = found
		data, err = io.ReadAll(source)
		if err = errors.Join(err, source.Close()); err != nil {
			return err
		}
		if _, err = pgctl.ParseControlFile(data); err == nil {
			break
		}
		if try == controlTries {
			return fmt.Errorf("%s: %w", source.Name(), err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(controlPause):
		}
	}
	target, err := openIn(c.in.to, c.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	if _, err = target.Write(data); err == nil {
		err = own(target, info)
	}
	return errors.Join(err, target.Close())
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
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, snap.ErrNoSnapshot)
	}
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
func (d Driver) Delete(ctx context.Context, volume snap.Volume, name string) error {
	return maker(ctx).Delete(volume, name)
}

// Clone copies the snapshot's files to target.
func (d Driver) Clone(ctx context.Context, snapshot snap.Snapshot, name, target string) (snap.Clone, error) {
	clone := snap.Clone{Driver: Name, Name: name, SnapshotID: snapshot.ID, Target: target, ID: target}
	if err := context.Cause(ctx); err != nil {
		return clone, err
	}
	if _, err := os.Stat(snapshot.ID); errors.Is(err, fs.ErrNotExist) {
		return clone, fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		return clone, err
	}
	tree := treeCopy{from: snapshot.ID, to: target, skip: none, skipContent: none, isControl: none}
	if err := tree.run(ctx); err != nil {
		return clone, errors.Join(err, os.RemoveAll(target))
	}
	return clone, nil
}

// Release removes the copied files.
func (d Driver) Release(_ context.Context, clone snap.Clone) error {
	return os.RemoveAll(clone.Target)
}
