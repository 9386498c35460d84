package drivertest

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"pgsnap/internal/snap"
)

func snapshotOne(f *fixture) {
	volume := f.some(1)[0]
	want := contentOf(f.t, volume.Root)
	before := time.Now()
	set := f.snapshot(f.snapshotName(), volume)
	after := time.Now()
	alter(f.t, volume.Root)
	now := contentOf(f.t, volume.Root)
	f.holds(set.Snapshots[0], want)
	if diff := now.diff(contentOf(f.t, volume.Root)); diff != "" {
		f.t.Errorf("the volume itself has changed:\n%s", diff)
	}
	// Some storage knows whole seconds only.
	if cut := set.Snapshots[0].CutAt; cut.Before(before.Truncate(time.Second)) || cut.After(after) {
		f.t.Errorf("it was cut at %v, between %v and %v", cut, before, after)
	}
}

func snapshotTwo(f *fixture) {
	volumes := f.some(2)
	f.must(os.WriteFile(filepath.Join(volumes[1].Root, "second"), nil, 0o600))
	want := []content{contentOf(f.t, volumes[0].Root), contentOf(f.t, volumes[1].Root)}
	set := f.snapshot(f.snapshotName(), volumes...)
	reversed := f.snapshot(f.snapshotName(), volumes[1], volumes[0])
	for index, volume := range volumes {
		alter(f.t, volume.Root)
		f.holds(set.Snapshots[index], want[index])
		f.holds(reversed.Snapshots[1-index], want[index])
	}
	if set.Snapshots[0].ID == set.Snapshots[1].ID {
		f.t.Errorf("both snapshots are %s", set.Snapshots[0].ID)
	}
	if set.Snapshots[0].CutAt.After(set.Snapshots[1].CutAt) || reversed.Snapshots[0].CutAt.After(reversed.Snapshots[1].CutAt) {
		f.t.Errorf("the volumes were not cut in their order: %+v, reversed %+v", set, reversed)
	}
}

func snapshotDeep(f *fixture) {
	deep := filepath.Join(f.NewVolume(f.t, "volume"), "a", "b c", "data")
	f.must(os.MkdirAll(deep, 0o700))
	fill(f.t, deep)
	volume := f.volumesAt(pathAt(deep, 0))[0]
	want := contentOf(f.t, deep)
	set := f.snapshot(f.snapshotName(), volume)
	alter(f.t, deep)
	clone := f.clone(set.Snapshots[0], copyName(), f.target())
	relative, err := volume.Relative(deep)
	f.must(err)
	if diff := want.diff(contentOf(f.t, filepath.Join(clone.Target, relative))); diff != "" {
		f.t.Error(diff)
	}
}

func snapshotEmpty(f *fixture) {
	volume := f.volumesAt(pathAt(f.NewVolume(f.t, "empty"), 0))[0]
	want := contentOf(f.t, volume.Root)
	set := f.snapshot(f.snapshotName(), volume)
	alive := filepath.Join(volume.Root, "file")
	f.must(os.WriteFile(alive, nil, 0o600))
	f.holds(set.Snapshots[0], want)
}

// snapshotInstant writes to one volume and then to the other, again and again:
// at any one instant, the first is ahead by one write or by none.
func snapshotInstant(f *fixture) {
	if !f.Driver.Info().Instant {
		f.t.Skip("the storage can't")
	}
	volumes := f.some(2)
	paths := []string{
		filepath.Join(volumes[0].Root, "first"), filepath.Join(volumes[0].Root, "second"),
		filepath.Join(volumes[1].Root, "third"),
	}
	stop := countInto(f.t, paths)
	defer stop()
	for range 3 {
		set := f.snapshot(f.snapshotName(), volumes...)
		first := f.clone(set.Snapshots[0], copyName(), f.target())
		counts := []int64{readCount(f.t, filepath.Join(first.Target, "first")), readCount(f.t, filepath.Join(first.Target, "second"))}
		if ahead := counts[0] - counts[1]; ahead < 0 || ahead > 1 {
			f.t.Errorf("%s: after write %d of the first file, %d of the second: not of one instant", set.Snapshots[0].ID, counts[0], counts[1])
		}
		second := f.clone(set.Snapshots[1], copyName(), f.target())
		third := readCount(f.t, filepath.Join(second.Target, "third"))
		if ahead := counts[1] - third; set.Atomic && (ahead < 0 || ahead > 1) {
			f.t.Errorf("after write %d in the first volume, %d in the second: the set is not of one instant", counts[1], third)
		}
		f.release(second)
		f.release(first)
	}
}

func snapshotSameName(f *fixture) {
	volumes := f.some(2)
	want := []content{contentOf(f.t, volumes[0].Root), contentOf(f.t, volumes[1].Root)}
	name := f.snapshotName()
	first := f.snapshot(name, volumes...)
	alter(f.t, volumes[0].Root)
	alter(f.t, volumes[1].Root)
	was := f.Inventory(f.t)
	again := f.snapshot(name, volumes...)
	f.unchanged("after the second Snapshot of that name", was)
	if again.Atomic && !first.Atomic {
		f.t.Error("the set is of one instant, which it was not at first")
	}
	for index, snapshot := range again.Snapshots {
		if snapshot.ID != first.Snapshots[index].ID || !snapshot.CutAt.Equal(first.Snapshots[index].CutAt) {
			f.t.Errorf("first %+v, then %+v", first.Snapshots[index], snapshot)
		}
		f.holds(snapshot, want[index])
	}
}

func snapshotTwoNames(f *fixture) {
	volume := f.some(1)[0]
	wantOne := contentOf(f.t, volume.Root)
	one := f.snapshot(f.snapshotName(), volume)
	alter(f.t, volume.Root)
	wantTwo := contentOf(f.t, volume.Root)
	two := f.snapshot(f.snapshotName(), volume)
	if one.Snapshots[0].ID == two.Snapshots[0].ID {
		f.t.Errorf("both snapshots are %s", one.Snapshots[0].ID)
	}
	f.holds(one.Snapshots[0], wantOne)
	f.holds(two.Snapshots[0], wantTwo)
}

// snapshotConcurrent makes and deletes snapshots of the same volumes from two
// sides, as backups of two clusters on one storage do.
func snapshotConcurrent(f *fixture) {
	volumes := f.some(2)
	const sides, rounds = 2, 6
	var names [sides][rounds]string
	for side := range names {
		for round := range names[side] {
			names[side][round] = f.snapshotName()
		}
	}
	var wait sync.WaitGroup
	for side := range names {
		wait.Go(func() {
			for round, name := range names[side] {
				set, err := f.Driver.Snapshot(f.t.Context(), name, volumes, cutMetadata())
				if err != nil {
					f.t.Errorf("side %d, round %d: %v", side, round, err)
					continue
				}
				f.checkSets(set, name, volumes)
			}
		})
	}
	wait.Wait()
}

// checkSets is checkSet for use beside others, followed by the deletion.
func (f *fixture) checkSets(set snap.Set, name string, volumes []snap.Volume) {
	for index, snapshot := range set.Snapshots {
		if snapshot.Name != name || !snapshot.Complete || snapshot.VolumeID != volumes[index].ID {
			f.t.Errorf("snapshot %s of volume %s says: %+v", name, volumes[index].ID, snapshot)
		}
	}
	for _, volume := range volumes {
		if err := f.Driver.Delete(f.t.Context(), volume, name); err != nil {
			f.t.Errorf("delete %s of %s: %v", name, volume.ID, err)
		}
	}
}
