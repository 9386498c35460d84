package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// List finds the snapshots of volumes by their tags. One is complete that holds
// its volume's content still: a classic one that overflowed, or a thin one whose
// pool failed, does not.
func (d Driver) List(ctx context.Context, volumes []snap.Volume) ([]snap.Snapshot, error) {
	rows, err := rowsOf(ctx, volumes)
	if err != nil {
		return nil, err
	}
	var found []snap.Snapshot
	for _, volume := range volumes {
		for _, r := range rows {
			if snapshot, is := snapshotOf(volume, r); is {
				snapshot.Complete = snapshot.Complete && holds(r, rows)
				found = append(found, snapshot)
			}
		}
	}
	return found, nil
}

// rowsOf are the rows of the volumes' groups, and those of all groups where one of
// them is not there: it may have been renamed.
func rowsOf(ctx context.Context, volumes []snap.Volume) ([]row, error) {
	var groups []string
	for _, volume := range volumes {
		group, _ := split(volume.ID)
		groups = append(groups, group)
	}
	if len(groups) == 0 {
		return nil, nil
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	rows, err := report(ctx, groups...)
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.Group == group }) {
			return report(ctx)
		}
	}
	return rows, nil
}

// snapshotOf is the snapshot that a row is of a volume. Its ID is the name it was
// made under, whatever its group is called now.
func snapshotOf(volume snap.Volume, r row) (snap.Snapshot, bool) {
	known := facts(r.tags())
	name := own(known, tagSnapshot)
	if !r.marked() || name == "" || own(known, tagVolume) != volume.ID {
		return snap.Snapshot{}, false
	}
	group, origin := split(volume.ID)
	id := snapshotName(name, group, origin)
	if id != r.Name {
		return snap.Snapshot{}, false
	}
	cut, err := time.Parse(time.RFC3339Nano, own(known, tagCut))
	return snap.Snapshot{
		Driver: Name, VolumeID: volume.ID, Name: name, ID: group + "/" + id, CutAt: cut, Complete: err == nil,
	}, true
}

// holds tells whether a snapshot can still be read. Only a whole lvcreate leaves
// one that is a snapshot.
func holds(r row, rows []row) bool {
	if r.is(r.Layout, "thin") {
		pool := slices.IndexFunc(rows, func(p row) bool { return p.Group == r.Group && p.Name == r.Pool })
		// What a full pool holds can be read, and so it can with read-only metadata.
		return pool >= 0 && rows[pool].Health != "failed" && rows[pool].Health != "partial" && rows[pool].CheckNeeded != "1" &&
			r.Health != "partial" && r.Health != "failed"
	}
	return r.is(r.Role, "thicksnapshot") && r.Invalid != "1" && r.Merging != "1" && r.Health != "partial"
}

// Delete removes a volume's snapshot by its exact name, if it carries the mark.
func (d Driver) Delete(ctx context.Context, volume snap.Volume, name string) error {
	group, origin := split(volume.ID)
	id := snapshotName(name, group, origin)
	err := remove(ctx, group+"/"+id)
	if !errors.Is(err, errNotFound) {
		return err
	}
	// The group may have been renamed.
	rows, err := rowsOf(ctx, []snap.Volume{volume})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if snapshot, is := snapshotOf(volume, r); is && snapshot.Name == name && r.Group != group {
			return remove(ctx, r.id())
		}
	}
	return nil
}

// remove removes a volume that carries the mark. LVM itself looks whether it does,
// under its lock.
func remove(ctx context.Context, id string) error {
	out, err := run(ctx, "lvremove", "--yes", "--select", "lv_tags="+mark, "--", id)
	if errors.Is(err, errInUse) {
		return fault.Wrap(err, fault.Busy, "", "%s is used by %s", id, usersOf(id))
	}
	if err == nil && !strings.Contains(string(out), "successfully removed") {
		return fault.New(fault.Storage, "remove it yourself, if nobody needs it", "volume %s does not carry the tag %q: it is not pgsnap's", id, mark)
	}
	return err
}

// usersOf names what has a volume open.
func usersOf(id string) string {
	group, name := split(id)
	users, err := findUsers(deviceName(group, name))
	if err != nil || len(users) == 0 {
		return fmt.Sprintf("a process (fuser -v /dev/%s names it) or by another mount namespace", id)
	}
	return users
}
