// Package btrfs is the driver for Btrfs: a snapshot is a read-only snapshot of
// the subvolume that a directory lies in, a clone is a writable one of that.
//
// One subvolume is cut at one instant; several are cut one after another. A
// snapshot leaves nested subvolumes out, so those are volumes of their own.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"pgsnap/internal/beside"
	"pgsnap/internal/command"
	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// Name is what configuration and catalog call the driver.
const Name = "btrfs"

// Driver is a snap.Driver. It needs root and the btrfs program.
type Driver struct {
	// Directory, on the same file system, holds all snapshots, if set; otherwise
	// they are beside the subvolumes.
	Directory string
}

// Info says what the driver can do.
func (d Driver) Info() snap.Info {
	return snap.Info{Name: Name, Instant: true, Metadata: true}
}

// Resolve finds the subvolumes that paths lie in, and the ones nested in them.
func (d Driver) Resolve(_ context.Context, paths []snap.Path) ([]snap.Volume, error) {
	var volumes []snap.Volume
	add := func(root string, path snap.Path) {
		index := slices.IndexFunc(volumes, func(v snap.Volume) bool { return v.Root == root })
		if index < 0 {
			index = len(volumes)
			volumes = append(volumes, snap.Volume{Driver: Name, ID: root, Root: root})
		}
		volumes[index].Paths = append(volumes[index].Paths, path)
	}
	all := slices.Clone(paths)
	for _, path := range paths {
		root, err := subvolumeOf(path.Path)
		if err != nil {
			return nil, err
		}
		if root != "" {
			add(root, path)
		}
	}
	// A subvolume's own nested ones are appended behind it and looked at in turn.
	for index := 0; index < len(volumes); index++ {
		nested, err := nestedIn(volumes[index].Root)
		if err != nil {
			return nil, err
		}
		for _, root := range nested {
			if path, needed := snap.NestedPath(all, root); needed {
				all = append(all, path)
				add(root, path)
			}
		}
	}
	for index := range volumes {
		place, err := d.place(volumes[index].Root, all)
		if err != nil {
			return nil, err
		}
		volumes[index].Place = place
	}
	if len(volumes) > 0 {
		if _, err := exec.LookPath("btrfs"); err != nil {
			return nil, fault.New(fault.Storage, "install btrfs-progs, or set driver = \"reflink\"", "%s lies on Btrfs, but there is no btrfs program", volumes[0].Root)
		}
	}
	return volumes, nil
}

// place is where the snapshots of a subvolume are kept: on the same file system
// and outside of the cluster's directories.
func (d Driver) place(root string, paths []snap.Path) (string, error) {
	candidates := []string{beside.Outside(root, paths), root}
	if d.Directory != "" {
		if _, err := os.Stat(d.Directory); err != nil {
			return "", fault.Wrap(err, fault.Usage, "make it, or set directory in [storage.btrfs] to one that exists", "keep snapshots of %s", root)
		}
		candidates = []string{d.Directory}
	}
	for _, candidate := range candidates {
		inCluster := slices.ContainsFunc(paths, func(p snap.Path) bool { return snap.IsBelow(candidate, p.Path) })
		same, err := sameFileSystem(root, candidate)
		if err != nil {
			return "", err
		}
		if same && !inCluster {
			return candidate, nil
		}
	}
	return "", fault.New(fault.Storage, "mount the file system's top level somewhere and set directory in [storage.btrfs] to a directory there",
		"there is no place for snapshots of %s: %s is not on the same file system outside of the cluster", root, candidates[0])
}

// Snapshot cuts the subvolumes one after another.
func (d Driver) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (snap.Set, error) {
	snapshots, err := maker(ctx).Snapshot(ctx, name, volumes, metadata)
	return snap.Set{Snapshots: snapshots, Atomic: len(snapshots) == 1}, err
}

func maker(ctx context.Context) beside.Maker {
	return beside.Maker{
		Cut: func(volume snap.Volume, content string) error {
			_, err := command.Run(ctx, []string{"btrfs", "subvolume", "snapshot", "-r", "--", volume.Root, content})
			return err
		},
		// What a cancelled call has made is removed all the same.
		Remove: func(content string) error { return deleteSubvolume(context.WithoutCancel(ctx), content) },
	}
}

// Commit makes the marks durable; the snapshots are since they were made, for
// the kernel commits a transaction with each.
func (d Driver) Commit(_ context.Context, volumes []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	return beside.Commit(volumes, set, metadata)
}

// List finds the snapshots beside the subvolumes.
func (d Driver) List(_ context.Context, volumes []snap.Volume) ([]snap.Snapshot, error) {
	return beside.List(volumes)
}

// Delete removes the read-only snapshot.
func (d Driver) Delete(ctx context.Context, volume snap.Volume, name string) error {
	return maker(ctx).Delete(volume, name)
}

func deleteSubvolume(ctx context.Context, path string) error {
	subvolume, err := isSubvolume(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !subvolume {
		return fmt.Errorf("%s is not a subvolume", path)
	}
	_, err = command.Run(ctx, []string{"btrfs", "subvolume", "delete", "--", path})
	return err
}

// Clone makes a writable snapshot: at the target where that is on the same file
// system, and otherwise beside the snapshot, to be mounted.
func (d Driver) Clone(ctx context.Context, snapshot snap.Snapshot, name, target string) (snap.Clone, error) {
	clone := snap.Clone{Driver: Name, Name: name, SnapshotID: snapshot.ID, Target: target, ID: target}
	subvolume, err := isSubvolume(snapshot.ID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !subvolume {
		return clone, fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	if err != nil {
		return clone, err
	}
	near, err := sameFileSystem(snapshot.ID, filepath.Dir(target))
	if err != nil {
		return clone, err
	}
	if !near {
		clone.ID = besideSnapshot(clone)
	}
	for _, path := range []string{target, clone.ID} {
		// A snapshot into a directory that exists would go below it.
		_, err := os.Lstat(path)
		if err == nil {
			err = fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return clone, err
		}
	}
	_, err = command.Run(ctx, []string{"btrfs", "subvolume", "snapshot", "--", snapshot.ID, clone.ID})
	if err == nil && !near {
		clone.Mount, err = mountOf(clone.ID)
	}
	if err != nil {
		// What was stopped may have made it already.
		return clone, errors.Join(err, deleteSubvolume(context.WithoutCancel(ctx), clone.ID))
	}
	return clone, nil
}

// mountOf is how to mount a subvolume elsewhere: by its number, since a path may
// hold what mount options can't.
func mountOf(subvolume string) (*snap.Mount, error) {
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	on, err := table.Of(filepath.Dir(subvolume))
	if err != nil {
		return nil, err
	}
	id, err := subvolumeID(subvolume)
	if err != nil {
		return nil, err
	}
	return &snap.Mount{Source: on.Source, FSType: "btrfs", Options: []string{fmt.Sprintf("subvolid=%d", id)}}, nil
}

// besideSnapshot is where a clone is kept whose target is on another file system.
func besideSnapshot(clone snap.Clone) string { return clone.SnapshotID + "," + clone.Name }

// Release removes the writable snapshot, wherever it is.
func (d Driver) Release(ctx context.Context, clone snap.Clone) error {
	kept := besideSnapshot(clone)
	for _, path := range []string{clone.Target, kept} {
		subvolume, err := isSubvolume(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !subvolume {
			continue
		}
		if err == nil {
			err = deleteSubvolume(ctx, path)
		}
		if err != nil {
			return err
		}
	}
	beside.Tidy(filepath.Dir(kept)) // the snapshot itself may be gone
	return nil
}
