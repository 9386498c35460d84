package lvm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// Snapshot cuts the volumes one after another, or with Instant all at once.
func (d Driver) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (snap.Set, error) {
	if err := context.Cause(ctx); err != nil {
		return snap.Set{}, err
	}
	plans, err := d.plan(name, volumes, metadata)
	if err != nil {
		return snap.Set{}, err
	}
	set, err := d.cutAll(ctx, plans)
	if errors.Is(err, errExists) {
		// Looked for only now: it would cost the window the time of an lvs.
		set, err = d.again(ctx, name, volumes, plans)
	}
	return set, err
}

// again cuts under a name that exists: a whole set is kept, and of a part of one,
// which is of another window, nothing.
func (d Driver) again(ctx context.Context, name string, volumes []snap.Volume, plans []plan) (snap.Set, error) {
	all, err := d.List(ctx, volumes)
	if err != nil {
		return snap.Set{}, err
	}
	var whole []snap.Snapshot
	var parts []plan
	for _, p := range plans {
		index := slices.IndexFunc(all, func(s snap.Snapshot) bool { return s.VolumeID == p.volume.ID && s.Name == name })
		if index < 0 {
			continue
		}
		parts = append(parts, p)
		if all[index].Complete {
			whole = append(whole, all[index])
		}
	}
	if len(whole) == len(plans) {
		return snap.Set{Snapshots: whole, Atomic: len(whole) == 1}, nil
	}
	if err := d.undo(ctx, parts); err != nil {
		return snap.Set{}, err
	}
	set, err := d.cutAll(ctx, plans)
	if errors.Is(err, errExists) {
		err = fault.Wrap(err, fault.Storage, "rename it (lvrename)", "a volume that is not pgsnap's has the name of a snapshot")
	}
	return set, err
}

// plan is one snapshot to be made.
type plan struct {
	volume   snap.Volume
	snapshot snap.Snapshot
	thin     bool
	// id is GROUP/NAME of the logical volume to be made.
	id   string
	tags []string
}

// plan gathers all that need not be done while the server waits.
func (d Driver) plan(name string, volumes []snap.Volume, metadata snap.Metadata) ([]plan, error) {
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	var plans []plan
	for _, volume := range volumes {
		group, origin := split(volume.ID)
		fs, err := fileSystemOf(table, volume, deviceName(group, origin))
		if err != nil {
			return nil, err
		}
		p := plan{volume: volume, thin: isThin(volume), id: group + "/" + snapshotName(name, group, origin)}
		p.snapshot = snap.Snapshot{Driver: Name, VolumeID: volume.ID, Name: name, ID: p.id, Complete: true}
		p.tags = append([]string{mark}, ownTag(tagSnapshot, name)...)
		p.tags = append(p.tags, ownTag(tagVolume, volume.ID)...)
		p.tags = append(p.tags, ownTag(tagMount, fs.String())...)
		p.tags = append(p.tags, metadataTags(metadata)...)
		plans = append(plans, p)
	}
	return plans, nil
}

// cutAll makes all the snapshots or none. It leaves alone what was there before.
func (d Driver) cutAll(ctx context.Context, plans []plan) (set snap.Set, err error) {
	var made []plan
	defer func() {
		if err != nil {
			set, err = snap.Set{}, errors.Join(err, d.undo(context.WithoutCancel(ctx), made))
		}
	}()
	if d.Instant && len(plans) > 1 {
		return d.cutTogether(ctx, plans, &made)
	}
	for _, p := range plans {
		p.snapshot.CutAt = now()
		args := append(d.cutArgs(p), addTags(ownTag(tagCut, cutText(p.snapshot.CutAt)))...)
		if err := makeOne(ctx, p, &made, args); err != nil {
			return set, err
		}
		set.Snapshots = append(set.Snapshots, p.snapshot)
	}
	set.Atomic = len(plans) == 1
	return set, nil
}

// makeOne makes one snapshot, and notes it as made: also where that fails, it may
// be there; but one of that name that was there before is not ours to remove.
func makeOne(ctx context.Context, p plan, made *[]plan, args []string) error {
	_, err := run(ctx, append(args, "--", p.volume.ID)...)
	if err == nil {
		err = context.Cause(ctx)
	}
	if !errors.Is(err, errExists) {
		*made = append(*made, p)
	}
	return fault.Wrap(err, fault.Storage, "", "snapshot %s of %s", p.id, p.volume.ID)
}

// now is the time as a tag can hold it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// cutText is a time as its tag holds it.
func cutText(at time.Time) string { return at.Format(time.RFC3339Nano) }

// cutArgs make a snapshot. LVM suspends the origin for it, and the kernel freezes
// its file system with that (lock_fs in drivers/md/dm.c): whatever was written is
// in the snapshot, and nothing in it needs the journal to be whole.
//
// A thin one is not activated (setactivationskip): that saves time, and no second
// file system of the same UUID is there for a boot to mount. The archive of the
// group's metadata is left to Commit (autobackup).
func (d Driver) cutArgs(p plan) []string {
	_, name := split(p.id)
	args := []string{"lvcreate", "--yes", "--snapshot", "--permission", "r", "--autobackup", "n", "--name", name}
	if p.thin {
		args = append(args, "--setactivationskip", "y")
	} else {
		args = append(args, sizeArgs(d.size())...)
	}
	return append(args, addTags(p.tags)...)
}

// sizeArgs are the arguments for a size: a share of something, or bytes.
func sizeArgs(size string) []string {
	if strings.Contains(size, "%") {
		return []string{"--extents", size}
	}
	return []string{"--size", size}
}

// undo removes snapshots that were made, or half made.
func (d Driver) undo(ctx context.Context, plans []plan) error {
	var failures error
	for _, p := range plans {
		failures = errors.Join(failures, d.Delete(ctx, p.volume, p.snapshot.Name))
	}
	return failures
}
