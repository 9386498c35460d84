package drivertest

import (
	"errors"
	"os"
	"path/filepath"

	"pgsnap/internal/snap"
)

func cloneNear(f *fixture) {
	if f.Near == "" {
		f.t.Skip("every clone is mounted")
	}
	f.cloneAt(f.newPath(f.Near))
}

func cloneFar(f *fixture) { f.cloneAt(f.newPath(f.Far)) }

func (f *fixture) cloneAt(target string) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	alter(f.t, volume.Root)
	was := f.Inventory(f.t)
	clone := f.clone(snapshot, copyName(), target)
	if diff := want.diff(contentOf(f.t, target)); diff != "" {
		f.t.Error(diff)
	}
	f.release(clone)
	f.unchanged("after the Release", was)
}

func cloneWritable(f *fixture) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	for _, target := range f.targets() {
		first, second := f.clone(snapshot, copyName(), target), f.clone(snapshot, copyName(), f.target())
		alter(f.t, first.Target)
		changed := contentOf(f.t, first.Target)
		if want.diff(changed) == "" {
			f.t.Error("the clone did not change")
		}
		for _, dir := range []string{second.Target, volume.Root} {
			if diff := want.diff(contentOf(f.t, dir)); diff != "" {
				f.t.Errorf("the clone changed, and with it %s:\n%s", dir, diff)
			}
		}
		f.holds(snapshot, want)
		if diff := changed.diff(contentOf(f.t, first.Target)); diff != "" {
			f.t.Errorf("another clone changed this one:\n%s", diff)
		}
		f.release(second)
		f.release(first)
	}
}

// cloneTwoVolumes gives all clones of a copy one name.
func cloneTwoVolumes(f *fixture) {
	volumes := f.some(2)
	f.must(os.WriteFile(filepath.Join(volumes[1].Root, "second"), nil, 0o600))
	set := f.snapshot(f.snapshotName(), volumes...)
	for _, dir := range []string{f.Near, f.Far} {
		if dir == "" {
			continue
		}
		name := copyName()
		clones := []snap.Clone{
			f.clone(set.Snapshots[0], name, f.newPath(dir)), f.clone(set.Snapshots[1], name, f.newPath(dir)),
		}
		for index, volume := range volumes {
			if diff := contentOf(f.t, volume.Root).diff(contentOf(f.t, clones[index].Target)); diff != "" {
				f.t.Error(diff)
			}
		}
		f.release(clones[0])
		if diff := contentOf(f.t, volumes[1].Root).diff(contentOf(f.t, clones[1].Target)); diff != "" {
			f.t.Errorf("after the first clone's Release:\n%s", diff)
		}
		f.release(clones[1])
	}
}

// cloneVolumeGone is what backups are for.
func cloneVolumeGone(f *fixture) {
	if f.RemoveVolume == nil {
		f.t.Skip("a volume of the storage can't be removed")
	}
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	name := f.snapshotName()
	f.snapshot(name, volume)
	f.RemoveVolume(f.t, volume.Root)
	snapshot := f.listed(volume, name)
	if !snapshot.Complete {
		f.t.Errorf("without its volume, the snapshot is %+v", snapshot)
	}
	f.holds(snapshot, want)
}

func cloneTargetExists(f *fixture) {
	volume := f.some(1)[0]
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	for what, make := range map[string]func(path string) error{
		"an empty directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a full directory":   func(path string) error { return os.MkdirAll(filepath.Join(path, "sub"), 0o755) },
		"a file":             func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a link to nothing":  func(path string) error { return os.Symlink("nothing", path) },
	} {
		for _, target := range f.targets() {
			f.must(make(target))
			before, was := contentOf(f.t, target), f.Inventory(f.t)
			if clone, err := f.Driver.Clone(f.t.Context(), snapshot, copyName(), target); err == nil {
				f.t.Errorf("%s is at %s, and the clone is %+v", what, target, clone)
			}
			if diff := before.diff(contentOf(f.t, target)); diff != "" {
				f.t.Errorf("%s was at the target:\n%s", what, diff)
			}
			f.unchanged("after the failure", was)
			f.must(os.RemoveAll(target))
		}
	}
}

func cloneNoSnapshot(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	snapshot := f.snapshot(name, volume).Snapshots[0]
	f.delete(volume, name)
	for _, target := range f.targets() {
		clone, err := f.Driver.Clone(f.t.Context(), snapshot, copyName(), target)
		if !errors.Is(err, snap.ErrNoSnapshot) {
			f.t.Errorf("the clone is %+v, the error: %v", clone, err)
		}
		f.absent(target)
		f.unchanged("after the failure", f.before)
	}
}

func releaseNear(f *fixture) {
	if f.Near == "" {
		f.t.Skip("every clone is mounted")
	}
	f.releaseAt(f.newPath(f.Near))
}

func releaseFar(f *fixture) { f.releaseAt(f.newPath(f.Far)) }

// releaseAt removes a clone that was written to, and nothing but the clone.
func (f *fixture) releaseAt(target string) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	was := f.Inventory(f.t)
	clone := f.clone(snapshot, copyName(), target)
	f.must(os.WriteFile(filepath.Join(target, "new"), noise(100_000), 0o600))
	f.must(os.Mkdir(filepath.Join(target, "closed"), 0))
	f.release(clone)
	f.unchanged("after the Release", was)
	f.holds(snapshot, want)
}

func releaseTwice(f *fixture) {
	snapshot := f.snapshot(f.snapshotName(), f.some(1)...).Snapshots[0]
	was := f.Inventory(f.t)
	for _, target := range f.targets() {
		clone := f.clone(snapshot, copyName(), target)
		f.release(clone)
		f.must(f.Driver.Release(f.t.Context(), clone))
		f.unchanged("after the second Release", was)
	}
}

// releaseAbsent releases clones that were only meant to be made.
func releaseAbsent(f *fixture) {
	snapshot := f.snapshot(f.snapshotName(), f.some(1)...).Snapshots[0]
	was := f.Inventory(f.t)
	for _, target := range f.targets() {
		f.must(f.Driver.Release(f.t.Context(), known(snapshot, copyName(), target)))
		f.unchanged("after the Release of nothing", was)
	}
}

// known is what the catalog knows of a clone before it is made.
func known(snapshot snap.Snapshot, name, target string) snap.Clone {
	return snap.Clone{Driver: snapshot.Driver, Name: name, SnapshotID: snapshot.ID, Target: target}
}

// releaseInterrupted releases clones of whose making nobody heard.
func releaseInterrupted(f *fixture) {
	snapshot := f.snapshot(f.snapshotName(), f.some(1)...).Snapshots[0]
	was := f.Inventory(f.t)
	for _, target := range f.targets() {
		name := copyName()
		_, err := f.Driver.Clone(f.t.Context(), snapshot, name, target)
		f.must(err)
		f.must(f.Driver.Release(f.t.Context(), known(snapshot, name, target)))
		f.absent(target)
		f.unchanged("after the Release", was)
	}
}

// releaseSnapshotGone releases clones whose snapshot is not there any more, if
// the storage lets it go.
func releaseSnapshotGone(f *fixture) {
	volume := f.some(1)[0]
	for _, target := range f.targets() {
		name := f.snapshotName()
		snapshot := f.snapshot(name, volume).Snapshots[0]
		clone := f.clone(snapshot, copyName(), target)
		if err := f.Driver.Delete(f.t.Context(), volume, name); err != nil {
			f.t.Skip("a snapshot with a clone can't be deleted")
		}
		f.releaseAs(clone, known(snapshot, clone.Name, target))
		f.unchanged("after the Release", f.before)
	}
}

func releaseOneOfTwo(f *fixture) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	for _, dir := range []string{f.Near, f.Far} {
		if dir == "" {
			continue
		}
		first, second := f.clone(snapshot, copyName(), f.newPath(dir)), f.clone(snapshot, copyName(), f.newPath(dir))
		f.release(first)
		if diff := want.diff(contentOf(f.t, second.Target)); diff != "" {
			f.t.Errorf("after the other's Release:\n%s", diff)
		}
		f.release(second)
	}
}
