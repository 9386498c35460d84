package drivertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pgsnap/internal/snap"
)

// promptly is how soon a driver returns once it is cancelled. It is generous, for
// these machines are slow and shared.
const promptly = 5 * time.Second

func snapshotHalfMade(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.HalfMade(f.t, volume, name)
	alter(f.t, volume.Root)
	want := contentOf(f.t, volume.Root)
	set, err := f.Driver.Snapshot(f.t.Context(), name, []snap.Volume{volume}, cutMetadata())
	f.must(err)
	if len(set.Snapshots) == 1 && !set.Snapshots[0].Complete {
		return // the driver tells
	}
	f.checkSet(set, name, []snap.Volume{volume})
	f.holds(set.Snapshots[0], want)
}

// snapshotHalfSet is a Snapshot that was killed between its two volumes, and
// called again.
func snapshotHalfSet(f *fixture) {
	volumes := f.some(2)
	name := f.snapshotName()
	half := f.snapshot(name, volumes[0])
	alter(f.t, volumes[1].Root)
	want := contentOf(f.t, volumes[1].Root)
	set := f.snapshot(name, volumes...)
	f.holds(set.Snapshots[0], contentOf(f.t, volumes[0].Root))
	f.holds(set.Snapshots[1], want)
	if set.Atomic && set.Snapshots[0].CutAt.Equal(half.Snapshots[0].CutAt) {
		f.t.Error("the set is of one instant, but its first snapshot is older than this call")
	}
}

func snapshotForeign(f *fixture) {
	volume := f.some(1)[0]
	name := f.snapshotName()
	f.putForeign(volume, name)
	was := f.Inventory(f.t)
	set, err := f.Driver.Snapshot(f.t.Context(), name, []snap.Volume{volume}, cutMetadata())
	if err == nil {
		f.t.Errorf("something foreign has the name, and the set is %+v", set)
	}
	f.unchanged("after the failure", was)
}

func snapshotSecondFails(f *fixture) {
	volumes := f.some(2)
	name := f.snapshotName()
	f.putForeign(volumes[1], name)
	was := f.Inventory(f.t)
	set, err := f.Driver.Snapshot(f.t.Context(), name, volumes, cutMetadata())
	if err == nil || len(set.Snapshots) > 0 {
		f.t.Errorf("something foreign is in the way of the second, and the set is %+v, the error %v", set, err)
	}
	f.unchanged("after the failure", was)
	f.snapshot(f.snapshotName(), volumes...) // another name is not affected
}

func snapshotSecondGone(f *fixture) {
	if f.RemoveVolume == nil {
		f.t.Skip("a volume of the storage can't be removed")
	}
	volumes := f.some(2)
	f.RemoveVolume(f.t, volumes[1].Root)
	was := f.Inventory(f.t)
	set, err := f.Driver.Snapshot(f.t.Context(), f.snapshotName(), volumes, cutMetadata())
	if err == nil || len(set.Snapshots) > 0 {
		f.t.Errorf("the second volume is gone, and the set is %+v, the error %v", set, err)
	}
	f.unchanged("after the failure", was)
}

func snapshotCancelledBefore(f *fixture) {
	volumes := f.some(2)
	was := f.Inventory(f.t)
	ctx, cancel := context.WithCancel(f.t.Context())
	cancel()
	start := time.Now()
	set, err := f.Driver.Snapshot(ctx, f.snapshotName(), volumes, cutMetadata())
	f.isCancelled(err)
	if took := time.Since(start); took > promptly {
		f.t.Errorf("it returned after %v", took)
	}
	if len(set.Snapshots) > 0 {
		f.t.Errorf("the set is %+v", set)
	}
	f.unchanged("after the cancelled Snapshot", was)
}

// moments are when something is cancelled that may have ended by then.
var moments = []time.Duration{time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond}

func snapshotCancelledMeanwhile(f *fixture) {
	volumes := f.some(2)
	fillMore(f, volumes[0].Root)
	was := f.Inventory(f.t)
	for _, moment := range moments {
		name := f.snapshotName()
		err := f.cancelled(moment, func(ctx context.Context) error {
			_, err := f.Driver.Snapshot(ctx, name, volumes, cutMetadata())
			return err
		})
		if err == nil {
			f.delete(volumes[0], name)
			f.delete(volumes[1], name)
		}
		f.unchanged(fmt.Sprintf("after a Snapshot cancelled at %v (%v)", moment, err), was)
	}
}

func cloneCancelledBefore(f *fixture) {
	snapshot := f.snapshot(f.snapshotName(), f.some(1)...).Snapshots[0]
	was := f.Inventory(f.t)
	ctx, cancel := context.WithCancel(f.t.Context())
	cancel()
	for _, target := range f.targets() {
		_, err := f.Driver.Clone(ctx, snapshot, copyName(), target)
		f.isCancelled(err)
		f.absent(target)
		f.unchanged("after the cancelled Clone", was)
	}
}

func cloneCancelledMeanwhile(f *fixture) {
	volume := f.some(1)[0]
	fillMore(f, volume.Root)
	snapshot := f.snapshot(f.snapshotName(), volume).Snapshots[0]
	was := f.Inventory(f.t)
	for _, moment := range moments {
		for _, target := range f.targets() {
			var clone snap.Clone
			err := f.cancelled(moment, func(ctx context.Context) (err error) {
				clone, err = f.Driver.Clone(ctx, snapshot, copyName(), target)
				return err
			})
			if err == nil {
				f.must(f.Driver.Release(f.t.Context(), clone))
			}
			f.absent(target)
			f.unchanged(fmt.Sprintf("after a Clone cancelled at %v (%v)", moment, err), was)
		}
	}
}

// targets are one of each kind that the storage has.
func (f *fixture) targets() []string {
	targets := []string{f.newPath(f.Far)}
	if f.Near != "" {
		targets = append(targets, f.newPath(f.Near))
	}
	return targets
}

// cancelled cancels a call at a moment, and makes sure that it either ends well
// or says that it was cancelled.
func (f *fixture) cancelled(moment time.Duration, call func(context.Context) error) error {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	time.AfterFunc(moment, cancel)
	start := time.Now()
	err := call(ctx)
	if took := time.Since(start); took > moment+promptly {
		f.t.Errorf("cancelled after %v, it returned after %v", moment, took)
	}
	if err != nil {
		f.isCancelled(err)
	}
	return err
}

// fillMore makes a volume large enough for a copy of it to take a while.
func fillMore(f *fixture, root string) {
	data := noise(64 << 10)
	for index := range 300 {
		dir := filepath.Join(root, "more", fmt.Sprint(index%10))
		f.must(os.MkdirAll(dir, 0o700))
		f.must(os.WriteFile(filepath.Join(dir, fmt.Sprint(index)), data, 0o600))
	}
}
