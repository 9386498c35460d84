package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// fixture is what one case works with. It knows what was made, so as to be rid of
// it however the case ends.
type fixture struct {
	t *testing.T
	Storage
	before  []string
	volumes []snap.Volume
	names   []string
	clones  []snap.Clone
	foreign []func()
	count   int
}

func begin(t *testing.T, storage Storage) *fixture {
	return &fixture{t: t, Storage: storage, before: storage.Inventory(t)}
}

// end removes what the case made and has not removed itself, and looks whether
// anything is left. It comes before the test's own cleanup, which removes the
// volumes.
func (f *fixture) end() {
	ctx := context.WithoutCancel(f.t.Context())
	for _, clone := range slices.Backward(slices.Clone(f.clones)) {
		f.release(clone)
	}
	for _, remove := range f.foreign {
		remove()
	}
	for _, name := range f.names {
		for _, volume := range f.volumes {
			if err := f.Driver.Delete(ctx, volume, name); err != nil {
				f.t.Errorf("delete %s of %s: %v", name, volume.ID, err)
			}
		}
	}
	f.unchanged("at the end", f.before)
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// unchanged compares what is on the storage with what was.
func (f *fixture) unchanged(when string, was []string) {
	f.t.Helper()
	is := f.Inventory(f.t)
	f.without("there is on the storage", when, is, was)
	f.without("there is no longer on the storage", when, was, is)
}

// without reports the first lines that are not among others.
func (f *fixture) without(what, when string, lines, others []string) {
	f.t.Helper()
	lines = slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
	const enough = 4
	for _, line := range lines[:min(len(lines), enough)] {
		f.t.Errorf("%s, %s: %s", when, what, line)
	}
	if len(lines) > enough {
		f.t.Errorf("%s, %s: and %d more", when, what, len(lines)-enough)
	}
}

// stored is v as the catalog gives it back later.
func stored[T any](t *testing.T, v T) T {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

// snapshotName is a new name such as backups have.
func (f *fixture) snapshotName() string {
	name := snap.SnapshotNameOf(snap.NewID(time.Now()))
	for slices.Contains(f.names, name) { // as is not so rare within one second
		name = snap.SnapshotNameOf(snap.NewID(time.Now()))
	}
	f.names = append(f.names, name)
	return name
}

func copyName() string { return "copy-" + snap.NewID(time.Now()) }

// newVolume makes a volume with content in it.
func (f *fixture) newVolume() (root string) {
	f.count++
	root = f.NewVolume(f.t, fmt.Sprintf("volume%d", f.count))
	fill(f.t, root)
	return root
}

// some makes volumes with content in them, in the order of their paths.
func (f *fixture) some(count int) []snap.Volume {
	f.t.Helper()
	var paths []snap.Path
	for range count {
		paths = append(paths, pathAt(f.newVolume(), len(paths)))
	}
	return f.volumesAt(paths...)
}

// pathAt is the data directory first, and then tablespaces.
func pathAt(path string, index int) snap.Path {
	if index == 0 {
		return snap.Path{Role: snap.DataDirectory, Path: path}
	}
	return snap.Path{Role: snap.Tablespace, Path: path, OID: uint32(16384 + index)}
}

// volumesAt resolves paths, each of which is in a volume of its own.
func (f *fixture) volumesAt(paths ...snap.Path) []snap.Volume {
	f.t.Helper()
	found := f.resolve(paths...)
	var volumes []snap.Volume
	for _, path := range paths {
		index := slices.IndexFunc(found, func(v snap.Volume) bool { return slices.Contains(v.Paths, path) })
		if index < 0 {
			f.t.Fatalf("the driver does not claim %s", path.Path)
		}
		volumes = append(volumes, found[index])
	}
	if len(found) != len(paths) {
		f.t.Fatalf("%d paths are in %d volumes: %+v", len(paths), len(found), found)
	}
	f.volumes = append(f.volumes, volumes...)
	return volumes
}

// snapshot cuts volumes and holds the driver to what it says of them.
func (f *fixture) snapshot(name string, volumes ...snap.Volume) snap.Set {
	f.t.Helper()
	set, err := f.Driver.Snapshot(f.t.Context(), name, volumes, cutMetadata())
	f.must(err)
	f.checkSet(set, name, volumes)
	set.Snapshots = stored(f.t, set.Snapshots)
	return set
}

func (f *fixture) checkSet(set snap.Set, name string, volumes []snap.Volume) {
	f.t.Helper()
	if len(set.Snapshots) != len(volumes) {
		f.t.Fatalf("%d snapshots of %d volumes: %+v", len(set.Snapshots), len(volumes), set)
	}
	info := f.Driver.Info()
	for index, snapshot := range set.Snapshots {
		if snapshot.Driver != info.Name || snapshot.VolumeID != volumes[index].ID || snapshot.Name != name {
			f.t.Errorf("snapshot %s of volume %s says: %+v", name, volumes[index].ID, snapshot)
		}
		if snapshot.ID == "" || !snapshot.Complete || snapshot.CutAt.IsZero() {
			f.t.Errorf("the snapshot has no ID, was not cut, or is not complete: %+v", snapshot)
		}
	}
	if set.Atomic && !info.Instant {
		f.t.Error("the set is of one instant, although no snapshot is")
	}
	if !set.Atomic && info.Instant && len(volumes) == 1 {
		f.t.Error("one snapshot, of an instant, is not of one instant")
	}
}

// list lists snapshots of volumes.
func (f *fixture) list(volumes ...snap.Volume) []snap.Snapshot {
	f.t.Helper()
	snapshots, err := f.Driver.List(f.t.Context(), volumes)
	f.must(err)
	return snapshots
}

// listed is the one snapshot of that name.
func (f *fixture) listed(volume snap.Volume, name string) snap.Snapshot {
	f.t.Helper()
	var found []snap.Snapshot
	for _, snapshot := range f.list(volume) {
		if snapshot.Name == name {
			found = append(found, snapshot)
		}
	}
	if len(found) != 1 {
		f.t.Fatalf("%d snapshots %s of %s: %+v", len(found), name, volume.ID, found)
	}
	return found[0]
}

func (f *fixture) delete(volume snap.Volume, name string) {
	f.t.Helper()
	f.must(f.Driver.Delete(f.t.Context(), volume, name))
}

// target is a path for a clone where it need not be mounted, if there is such a
// place.
func (f *fixture) target() string {
	if f.Near != "" {
		return f.newPath(f.Near)
	}
	return f.newPath(f.Far)
}

func (f *fixture) newPath(dir string) string {
	f.count++
	return filepath.Join(dir, fmt.Sprintf("clone%d", f.count))
}

// clone clones a snapshot and mounts the clone, if that is to be done.
func (f *fixture) clone(snapshot snap.Snapshot, name, target string) snap.Clone {
	f.t.Helper()
	clone, err := f.Driver.Clone(f.t.Context(), snapshot, name, target)
	f.must(err)
	clone = stored(f.t, clone)
	f.clones = append(f.clones, clone)
	if clone.Driver != snapshot.Driver || clone.Name != name || clone.SnapshotID != snapshot.ID || clone.Target != target {
		f.t.Errorf("the clone %s of %s at %s says: %+v", name, snapshot.ID, target, clone)
	}
	if clone.Mount == nil {
		return clone
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatalf("the clone is to be mounted at %s, which is there: %v", target, err)
	}
	f.must(os.Mkdir(target, 0o700))
	f.must(mount.Mount(f.t.Context(), clone.Mount.Source, target, clone.Mount.FSType, clone.Mount.Options))
	return clone
}

// release is rid of a clone, and of its mount point.
func (f *fixture) release(clone snap.Clone) { f.releaseAs(clone, clone) }

// releaseAs releases a clone of which the driver is told no more than is known.
func (f *fixture) releaseAs(clone, known snap.Clone) {
	f.t.Helper()
	ctx := context.WithoutCancel(f.t.Context())
	f.clones = slices.DeleteFunc(f.clones, func(c snap.Clone) bool { return c.Target == clone.Target })
	if err := mount.Unmount(ctx, clone.Target); err != nil {
		f.t.Error(err)
	}
	if err := f.Driver.Release(ctx, known); err != nil {
		f.t.Errorf("release %s: %v", clone.Target, err)
	}
	if clone.Mount != nil {
		_ = os.Remove(clone.Target)
	}
	f.absent(clone.Target)
}

// absent makes sure that there is nothing at a path.
func (f *fixture) absent(path string) {
	f.t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		f.t.Errorf("%s is there: %v", path, err)
	}
}

// holds makes sure that a snapshot holds a content, and no other.
func (f *fixture) holds(snapshot snap.Snapshot, want content) {
	f.t.Helper()
	clone := f.clone(snapshot, copyName(), f.target())
	if diff := want.diff(contentOf(f.t, clone.Target)); diff != "" {
		f.t.Errorf("snapshot %s:\n%s", snapshot.ID, diff)
	}
	f.release(clone)
	if snapshot.Directory == "" {
		return
	}
	_, err := os.ReadDir(snapshot.Directory) // some are mounted only when entered
	f.must(err)
	if diff := want.diff(contentOf(f.t, snapshot.Directory)); diff != "" {
		f.t.Errorf("%s:\n%s", snapshot.Directory, diff)
	}
}

// putForeign has something foreign in the way of a snapshot.
func (f *fixture) putForeign(volume snap.Volume, name string) {
	f.t.Helper()
	f.foreign = append(f.foreign, f.Foreign(f.t, volume, name))
}

// isCancelled makes sure that an error says so.
func (f *fixture) isCancelled(err error) {
	f.t.Helper()
	if !errors.Is(err, context.Canceled) {
		f.t.Errorf("it was cancelled, but the error is: %v", err)
	}
}

// namesAny makes sure that an error names something that a person knows.
func (f *fixture) namesAny(err error, things ...string) {
	f.t.Helper()
	for _, thing := range things {
		if thing != "" && strings.Contains(err.Error(), thing) {
			return
		}
	}
	f.t.Errorf("the error names none of %q: %v", things, err)
}
