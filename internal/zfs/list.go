package zfs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// found is a snapshot and where it is now.
type found struct {
	snap.Snapshot
	// name is DATASET@NAME as ZFS has it now; ID is as it was made.
	name string
}

// List finds the snapshots of volumes by their own properties.
func (d Driver) List(ctx context.Context, volumes []snap.Volume) ([]snap.Snapshot, error) {
	all, err := d.find(ctx, volumes)
	var snapshots []snap.Snapshot
	for _, one := range all {
		snapshots = append(snapshots, one.Snapshot)
	}
	return snapshots, err
}

func (d Driver) find(ctx context.Context, volumes []snap.Volume) ([]found, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	things, err := snapshotsOf(ctx, datasetsOf(volumes))
	if err != nil {
		return nil, err
	}
	var all []found
	for _, volume := range volumes {
		for _, one := range things {
			snapshot, is := snapshotOf(table, volume, one)
			twice := slices.ContainsFunc(all, func(f found) bool { return f.ID == snapshot.ID })
			if is && !twice {
				all = append(all, found{snapshot, one.name})
			}
		}
	}
	return all, nil
}

func datasetsOf(volumes []snap.Volume) []string {
	var datasets []string
	for _, volume := range volumes {
		datasets = append(datasets, volume.ID)
	}
	slices.Sort(datasets)
	return slices.Compact(datasets)
}

// snapshotsOf are the snapshots with pgsnap's properties of datasets, those first,
// and of others in which theirs may be by now: after a zfs rename, which is told by a
// dataset that is not there, or a zfs promote, which leaves an origin or a clone. A
// pool that is not there is an error: it may be imported again.
func snapshotsOf(ctx context.Context, datasets []string) ([]thing, error) {
	pools := poolsOf(datasets)
	things, err := marked(ctx, datasets, "-d", "1")
	if err != nil && !errors.Is(err, errNotFound) {
		return nil, err
	}
	if err != nil {
		for _, pool := range pools {
			if err := (tool{}).checkPool(ctx, pool, false); err != nil {
				return nil, err
			}
		}
	} else {
		moved, err := mayHaveMoved(ctx, datasets, things)
		if err != nil || !moved {
			return things, err
		}
	}
	others, err := marked(ctx, pools, "-r")
	return append(things, others...), err
}

func mayHaveMoved(ctx context.Context, datasets []string, snapshots []thing) (bool, error) {
	names := slices.Clone(datasets)
	for _, snapshot := range snapshots {
		names = append(names, snapshot.name)
	}
	things, err := tool{}.get(ctx, names, "origin,clones")
	return slices.ContainsFunc(things, func(t thing) bool {
		return strings.Trim(t.properties["origin"].text+t.properties["clones"].text, "-") != ""
	}), ignoreAbsent(err) // one of them may have gone meanwhile
}

func marked(ctx context.Context, names []string, args ...string) ([]thing, error) {
	args = append(args, "-t", "snapshot", "-s", "local,received")
	return tool{}.get(ctx, names, append(args, strings.Join([]string{propSnapshot, propCut, propVolume}, ","))...)
}

func poolsOf(names []string) []string {
	var pools []string
	for _, name := range names {
		if pool := poolOf(name); !slices.Contains(pools, pool) {
			pools = append(pools, pool)
		}
	}
	return pools
}

// snapshotOf is the snapshot that a thing is of a volume. It is the volume's whose
// name was set on it, and before that was done, the one's that it lies in. What was
// received is a snapshot of the dataset that received it.
func snapshotOf(table mount.Table, volume snap.Volume, t thing) (snap.Snapshot, bool) {
	dataset, name := split(t.name)
	if v := t.properties[propVolume]; v.source == "local" {
		dataset = v.text
	}
	if name == "" || dataset != volume.ID || t.properties.ownText(propSnapshot) != name {
		return snap.Snapshot{}, false
	}
	snapshot := newSnapshot(table, volume, name)
	cut, err := time.Parse(time.RFC3339Nano, t.properties.ownText(propCut))
	snapshot.CutAt, snapshot.Complete = cut, err == nil
	return snapshot, true
}

// newSnapshot is a volume's snapshot but for when it was cut.
func newSnapshot(table mount.Table, volume snap.Volume, name string) snap.Snapshot {
	return snap.Snapshot{
		Driver: Name, VolumeID: volume.ID, Name: name, ID: volume.ID + "@" + name,
		Directory: controlDirectory(table, volume, name),
	}
}

// controlDirectory is where ZFS itself shows a snapshot below the mount of its
// dataset, if that is mounted ("Snapshots" in zfsconcepts(7)).
func controlDirectory(table mount.Table, volume snap.Volume, name string) string {
	for _, mounted := range table {
		if mounted.FSType == "zfs" && mounted.Source == volume.ID && mounted.Root == "/" && mounted.Mountpoint == volume.Root {
			return strings.TrimSuffix(volume.Root, "/") + "/.zfs/snapshot/" + name
		}
	}
	return ""
}
