package reflink_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// TestFullDisk has room for the original and one copy, and not for a second.
func TestFullDisk(t *testing.T) {
	lab, top := newFileSystem(t, "ext4", 24)
	pgdata := filepath.Join(top.Dir, "data")
	put(t, pgdata, "PG_VERSION")
	for _, name := range []string{"a", "b", "c", "d"} {
		pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, name), noise(2<<20), 0o600))
	}
	driver := reflink.Driver{}
	volumes, err := driver.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	pgtest.Check(t, driver.Commit(t.Context(), volumes, set, nil))
	before, used := names(t, top.Dir), usedBytes(t, top.Dir)

	_, err = driver.Snapshot(t.Context(), "pgsnap-2", volumes, nil)
	if !errors.Is(err, unix.ENOSPC) || fault.KindOf(err) != fault.Storage {
		t.Errorf("the disk is full, and the error is %v", err)
	}
	if !strings.Contains(err.Error(), top.Dir) || !strings.Contains(fault.HintOf(err), "[storage.reflink]") {
		t.Errorf("the error is %v, the hint %q", err, fault.HintOf(err))
	}
	_, err = driver.Clone(t.Context(), set.Snapshots[0], "copy-1", filepath.Join(top.Dir, "clone"))
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the disk is full, and the error is %v", err)
	}
	if after := names(t, top.Dir); !slices.Equal(before, after) {
		t.Errorf("before there were %q, now there are %q", before, after)
	}
	if now := usedBytes(t, top.Dir); now > used+64<<10 {
		t.Errorf("%d bytes were used, now it is %d", used, now)
	}

	// What is there can still be used, and removed to the last byte of room.
	_, err = driver.Clone(t.Context(), set.Snapshots[0], "copy-1", filepath.Join(farFrom(t, lab), "clone"))
	pgtest.Check(t, err)
	_ = os.WriteFile(filepath.Join(top.Dir, "filler"), make([]byte, 24<<20), 0o600)
	if _, err := driver.Snapshot(t.Context(), "pgsnap-3", volumes, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("there is no room at all, and the error is %v", err)
	}
	pgtest.Check(t, driver.Delete(t.Context(), volumes[0], "pgsnap-1"))
	if entries, err := os.ReadDir(top.Dir); err != nil || len(entries) != 3 { // data, filler, lost+found
		t.Errorf("at the end there are %v, %v", entries, err)
	}
}

// TestDirectory keeps snapshots where the configuration says, on another file
// system and of two volumes with the same name.
func TestDirectory(t *testing.T) {
	lab, top := newFileSystem(t, "xfs", 300)
	directory := filepath.Join(farFrom(t, lab), "snap shots")
	driver := reflink.Driver{Directory: directory}
	pgdata, space := filepath.Join(top.Dir, "a/data"), filepath.Join(top.Dir, "b/data")
	put(t, pgdata, "one")
	put(t, space, "two")
	paths := []snap.Path{data(pgdata), {Role: snap.Tablespace, Path: space, OID: 16384}}

	_, err := driver.Resolve(t.Context(), paths)
	if err == nil || !strings.Contains(err.Error(), directory) || !strings.Contains(fault.HintOf(err), "[storage.reflink]") {
		t.Errorf("the directory is absent, and the error is %v, the hint %q", err, fault.HintOf(err))
	}
	pgtest.Check(t, os.Mkdir(directory, 0o700))
	volumes, err := driver.Resolve(t.Context(), paths)
	pgtest.Check(t, err)
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	for index, want := range []string{"one", "two"} {
		if found := names(t, set.Snapshots[index].Directory); !slices.Equal(found, []string{want}) {
			t.Errorf("the snapshot of %s holds %q", volumes[index].Root, found)
		}
	}
	for _, volume := range volumes {
		pgtest.Check(t, driver.Delete(t.Context(), volume, "pgsnap-1"))
	}
	if entries, err := os.ReadDir(directory); err != nil || len(entries) > 0 {
		t.Errorf("at the end there are %v, %v", entries, err)
	}
}

// TestDirectoryInCluster refuses a place that is a part of what is copied.
func TestDirectoryInCluster(t *testing.T) {
	pgdata := filepath.Join(t.TempDir(), "data")
	put(t, pgdata, "PG_VERSION", "snapshots/")
	for _, directory := range []string{pgdata, filepath.Join(pgdata, "snapshots")} {
		_, err := reflink.Driver{Directory: directory}.Resolve(t.Context(), []snap.Path{data(pgdata)})
		if err == nil || !strings.Contains(err.Error(), directory) || !strings.Contains(fault.HintOf(err), "[storage.reflink]") {
			t.Errorf("snapshots are to be in %s, and the error is %v, the hint %q", directory, err, fault.HintOf(err))
		}
	}
}

// TestDataIsMountPoint has nothing beside the data directory on its file system:
// full copies on another are made only where the configuration says.
func TestDataIsMountPoint(t *testing.T) {
	lab, top := newFileSystem(t, "xfs", 300)
	put(t, top.Dir, "PG_VERSION")
	_, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(top.Dir)})
	if err == nil || !strings.Contains(err.Error(), top.Dir) || !strings.Contains(fault.HintOf(err), "[storage.reflink]") {
		t.Errorf("the error is %v, the hint %q", err, fault.HintOf(err))
	}
	driver := reflink.Driver{Directory: farFrom(t, lab)}
	volumes, err := driver.Resolve(t.Context(), []snap.Path{data(top.Dir)})
	pgtest.Check(t, err)
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	if found := names(t, set.Snapshots[0].Directory); !slices.Equal(found, []string{"PG_VERSION"}) {
		t.Errorf("the snapshot holds %q", found)
	}
}
