package drivertest

import (
	"pgsnap/internal/snap"
)

func listNothing(f *fixture) {
	volumes := f.some(2)
	if found := f.list(volumes...); len(found) > 0 {
		f.t.Errorf("there are snapshots: %+v", found)
	}
	if found := f.list(); len(found) > 0 {
		f.t.Errorf("no volume has snapshots: %+v", found)
	}
}

func listOwn(f *fixture) {
	volumes := f.some(2)
	names := []string{f.snapshotName(), f.snapshotName(), f.snapshotName()}
	made := map[string]snap.Snapshot{}
	for _, name := range names {
		made[name] = f.snapshot(name, volumes[0]).Snapshots[0]
	}
	f.snapshot(f.snapshotName(), volumes[1]) // not to be listed with the first volume's
	found := f.list(volumes[0])
	if len(found) != len(names) {
		f.t.Errorf("%d snapshots: %+v", len(found), found)
	}
	for _, snapshot := range found {
		f.same(snapshot, made[snapshot.Name])
	}
}

// same compares a snapshot as it is listed with what its making returned.
func (f *fixture) same(listed, made snap.Snapshot) {
	f.t.Helper()
	if !listed.CutAt.Equal(made.CutAt) {
		f.t.Errorf("%s was cut at %v, not %v", listed.ID, made.CutAt, listed.CutAt)
	}
	listed.CutAt = made.CutAt
	if listed != made {
		f.t.Errorf("%+v is listed as %+v", made, listed)
	}
}

func listSeveral(f *fixture) {
	volumes := f.some(2)
	name := f.snapshotName()
	set := f.snapshot(name, volumes...)
	alone := f.snapshot(f.snapshotName(), volumes[1]).Snapshots[0]
	found := f.list(volumes...)
	if len(found) != 3 {
		f.t.Errorf("%d snapshots: %+v", len(found), found)
	}
	for _, snapshot := range found {
		switch {
		case snapshot.Name == alone.Name:
			f.same(snapshot, alone)
		case snapshot.VolumeID == volumes[0].ID:
			f.same(snapshot, set.Snapshots[0])
		default:
			f.same(snapshot, set.Snapshots[1])
		}
	}
}

func listHalfMade(f *fixture) {
	volume := f.some(1)[0]
	whole, half := f.snapshotName(), f.snapshotName()
	f.snapshot(whole, volume)
	f.HalfMade(f.t, volume, half)
	if !f.listed(volume, whole).Complete {
		f.t.Error("the whole one is not complete")
	}
	if f.listed(volume, half).Complete {
		f.t.Error("the half made one is complete")
	}
}

func listForeign(f *fixture) {
	volume := f.some(1)[0]
	own := f.snapshotName()
	f.snapshot(own, volume)
	f.putForeign(volume, f.snapshotName())
	found := f.list(volume)
	if len(found) != 1 || found[0].Name != own {
		f.t.Errorf("there are snapshots %+v", found)
	}
}

func deleteOneOfTwo(f *fixture) {
	volume := f.some(1)[0]
	gone, stays := f.snapshotName(), f.snapshotName()
	f.snapshot(gone, volume)
	want := contentOf(f.t, volume.Root)
	snapshot := f.snapshot(stays, volume).Snapshots[0]
	alter(f.t, volume.Root)
	f.delete(volume, gone)
	if found := f.list(volume); len(found) != 1 || found[0].Name != stays {
		f.t.Errorf("there are snapshots %+v", found)
	}
	f.holds(snapshot, want)
}

func deleteOneVolume(f *fixture) {
	volumes := f.some(2)
	name := f.snapshotName()
	f.snapshot(name, volumes...)
	f.delete(volumes[0], name)
	if found := f.list(volumes...); len(found) != 1 || found[0].VolumeID != volumes[1].ID || !found[0].Complete {
		f.t.Errorf("there are snapshots %+v", found)
	}
}

func deleteAbsent(f *fixture) {
	f.delete(f.some(1)[0], f.snapshotName())
	f.unchanged("after it", f.before)
}

func deleteTwice(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.snapshot(name, volume)
	f.delete(volume, name)
	f.unchanged("after the first", f.before)
	f.delete(volume, name)
	f.unchanged("after the second", f.before)
}

func deleteHalfMade(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.HalfMade(f.t, volume, name)
	f.delete(volume, name)
	f.unchanged("after it", f.before)
}

func deleteForeign(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.putForeign(volume, name)
	was := f.Inventory(f.t)
	if err := f.Driver.Delete(f.t.Context(), volume, name); err == nil {
		f.t.Error("something foreign has the name, and there is no error")
	}
	f.unchanged("after it", was)
}

func deleteVolumeGone(f *fixture) {
	if f.RemoveVolume == nil {
		f.t.Skip("a volume of the storage can't be removed")
	}
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.snapshot(name, volume)
	f.RemoveVolume(f.t, volume.Root)
	f.delete(volume, name)
	f.unchanged("after it", f.before)
	f.delete(volume, name)
}

// deleteCloned deletes a snapshot of which there is a clone: either the clone
// goes on without it, or it is in use, and the error says by what.
func deleteCloned(f *fixture) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	name := f.snapshotName()
	snapshot := f.snapshot(name, volume).Snapshots[0]
	for _, target := range f.targets() {
		clone := f.clone(snapshot, copyName(), target)
		err := f.Driver.Delete(f.t.Context(), volume, name)
		if err != nil {
			f.namesAny(err, clone.ID, clone.Name, clone.Target)
			if !f.listed(volume, name).Complete {
				f.t.Error("the snapshot that is in use is not complete any more")
			}
		}
		if diff := want.diff(contentOf(f.t, target)); diff != "" {
			f.t.Errorf("the clone, after the error %v:\n%s", err, diff)
		}
		f.release(clone)
		f.delete(volume, name)
		f.unchanged("after both are gone", f.before)
		snapshot = f.snapshot(name, volume).Snapshots[0]
	}
}
