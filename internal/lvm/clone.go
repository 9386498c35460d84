package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// Clone makes a writable thin snapshot of a thin snapshot, to be mounted at the
// target, or copies the files of a classic one to the target.
func (d Driver) Clone(ctx context.Context, snapshot snap.Snapshot, name, target string) (clone snap.Clone, err error) {
	clone = snap.Clone{Driver: Name, Name: name, SnapshotID: snapshot.ID, Target: target}
	if exists(target) {
		return clone, fmt.Errorf("%s: %w", target, fs.ErrExist)
	}
	r, err := d.findSnapshot(ctx, snapshot)
	if err != nil {
		return clone, err
	}
	defer func() {
		// One of that name that was there before stays.
		if err != nil && !errors.Is(err, errExists) {
			err = errors.Join(err, d.Release(context.WithoutCancel(ctx), clone))
		}
	}()
	fileSystem := parseFileSystem(own(facts(r.tags()), tagMount))
	if !r.thin() {
		clone.ID = target
		return clone, copyFiles(ctx, r, fileSystem, clone)
	}
	clone.ID = r.Group + "/" + cloneName(name, snapshot.ID)
	clone.Mount = &snap.Mount{Source: "/dev/" + clone.ID, FSType: fileSystem.kind, Options: fileSystem.mountOptions()}
	return clone, cloneThin(ctx, r, clone)
}

// cloneThin makes the clone active, now and at every boot (-kn), so that a restored
// copy can be mounted from fstab.
func cloneThin(ctx context.Context, r row, clone snap.Clone) error {
	_, name := split(clone.ID)
	tags := append([]string{mark}, ownTag(tagClone, clone.Name)...)
	tags = append(tags, ownTag(tagOf, clone.SnapshotID)...)
	args := []string{"lvcreate", "--yes", "--snapshot", "--permission", "rw", "--setactivationskip", "n", "--name", name}
	_, err := run(ctx, append(append(args, addTags(tags)...), "--", r.id())...)
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// findSnapshot is the row of a snapshot that holds. Without one the error is
// snap.ErrNoSnapshot.
func (d Driver) findSnapshot(ctx context.Context, snapshot snap.Snapshot) (row, error) {
	volume := snap.Volume{ID: snapshot.VolumeID}
	rows, err := rowsOf(ctx, []snap.Volume{volume})
	if err != nil {
		return row{}, err
	}
	index := slices.IndexFunc(rows, func(r row) bool {
		found, is := snapshotOf(volume, r)
		return is && found.ID == snapshot.ID
	})
	if index < 0 {
		return row{}, fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	if !holds(rows[index], rows) {
		return row{}, fault.Wrap(snap.ErrNoSnapshot, fault.Storage, "", "%s: it overflowed, or its pool failed, so that it can't be read any more", snapshot.ID)
	}
	return rows[index], nil
}

// Release removes the clone's volume, or the files that were copied.
func (d Driver) Release(ctx context.Context, clone snap.Clone) error {
	if clone.ID != clone.Target {
		if err := d.removeClone(ctx, clone); err != nil {
			return err
		}
	}
	if clone.ID == "" || clone.ID == clone.Target {
		return removeFiles(ctx, clone)
	}
	return nil
}

func (d Driver) removeClone(ctx context.Context, clone snap.Clone) error {
	group, _ := split(clone.SnapshotID)
	name := cloneName(clone.Name, clone.SnapshotID)
	err := remove(ctx, group+"/"+name)
	if !errors.Is(err, errNotFound) {
		return err
	}
	// The group may have been renamed.
	rows, err := rowsOf(ctx, []snap.Volume{{ID: clone.SnapshotID}})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Name == name && r.marked() && r.Group != group {
			return remove(ctx, r.id())
		}
	}
	return nil
}
