package btrfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/btrfs"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func unmount(t *testing.T, at string) {
	if err := exec.Command("umount", "--", at).Run(); err != nil {
		t.Errorf("umount %s: %v", at, err)
	}
}

// mountSubvolume mounts a subvolume of a file system elsewhere, as /etc/fstab
// does where the top level is not mounted.
func mountSubvolume(t *testing.T, lab *pgtest.Lab, fs *pgtest.FS, name string) string {
	t.Helper()
	source, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "--nofsroot", "-M", fs.Dir).Output()
	pgtest.Check(t, err)
	at := mkdir(t, lab.Dir(), "mounted")
	run(t, "mount", "-o", "subvol="+name, strings.TrimSpace(string(source)), at)
	t.Cleanup(func() { unmount(t, at) })
	return at
}

// TestPlaceOfMountedSubvolume has the data directory in, or at, a subvolume that
// is mounted by itself: beside it there is another file system.
func TestPlaceOfMountedSubvolume(t *testing.T) {
	lab, fs := newBtrfs(t)
	subvolume(t, fs.Dir, "@data")
	root := mountSubvolume(t, lab, fs, "@data")
	deep := mkdir(t, root, "pg", "data")

	t.Run("DataBelow", func(t *testing.T) {
		volume := resolveOne(t, btrfs.Driver{}, deep)
		if volume.Root != root || volume.Place != root {
			t.Fatalf("volume %s, its snapshots in %s", volume.Root, volume.Place)
		}
		live(t, btrfs.Driver{}, volume, deep)
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("at the end there are %v, %v", entries, err)
		}
	})
	t.Run("DataThere", func(t *testing.T) {
		_, err := btrfs.Driver{}.Resolve(t.Context(), []snap.Path{data(root)})
		if err == nil || fault.KindOf(err) != fault.Storage || !strings.Contains(err.Error(), root) ||
			!strings.Contains(fault.HintOf(err), "[storage.btrfs]") {
			t.Errorf("the error is %v, the hint %q", err, fault.HintOf(err))
		}
	})
	t.Run("DataThereAndDirectory", func(t *testing.T) {
		driver := btrfs.Driver{Directory: mkdir(t, fs.Dir, "snapshots")}
		volume := resolveOne(t, driver, root)
		if volume.Root != root || volume.Place != driver.Directory {
			t.Fatalf("volume %s, its snapshots in %s", volume.Root, volume.Place)
		}
		live(t, driver, volume, root)
		if entries, err := os.ReadDir(driver.Directory); err != nil || len(entries) > 0 {
			t.Errorf("at the end there are %v, %v", entries, err)
		}
	})
}

// TestPlaceRefused has a Directory that can't be used.
func TestPlaceRefused(t *testing.T) {
	lab, fs := newBtrfs(t)
	other := pgtest.Mount(t, lab, "btrfs", 120)
	pgdata := subvolume(t, fs.Dir, "data")
	for what, directory := range map[string]string{
		"a directory in the cluster":    mkdir(t, pgdata, "snapshots"),
		"the data directory":            pgdata,
		"another Btrfs":                 other.Dir,
		"another kind of file system":   lab.Dir(),
		"a directory that is not there": filepath.Join(fs.Dir, "absent"),
	} {
		_, err := btrfs.Driver{Directory: directory}.Resolve(t.Context(), []snap.Path{data(pgdata)})
		if err == nil || !strings.Contains(err.Error(), directory) || !strings.Contains(fault.HintOf(err), "[storage.btrfs]") {
			t.Errorf("%s: the error is %v, the hint %q", what, err, fault.HintOf(err))
		}
	}
}

func resolveOne(t *testing.T, driver btrfs.Driver, path string) snap.Volume {
	t.Helper()
	volumes, err := driver.Resolve(t.Context(), []snap.Path{data(path)})
	pgtest.Check(t, err)
	if len(volumes) != 1 {
		t.Fatalf("%s is in volumes %+v", path, volumes)
	}
	return volumes[0]
}

// live takes one snapshot of a data directory through its life, and a second one
// beside it.
func live(t *testing.T, driver btrfs.Driver, volume snap.Volume, pgdata string) {
	t.Helper()
	ctx := t.Context()
	write(t, "then", pgdata, "file")
	volumes := []snap.Volume{volume}
	set, err := driver.Snapshot(ctx, "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	write(t, "now", pgdata, "file")
	_, err = driver.Snapshot(ctx, "pgsnap-2", volumes, nil)
	pgtest.Check(t, err)
	pgtest.Check(t, driver.Commit(ctx, volumes, set, snap.Metadata{"stop-lsn": "0/0"}))
	listed, err := driver.List(ctx, volumes)
	if err != nil || len(listed) != 2 || !listed[0].Complete || !listed[1].Complete {
		t.Errorf("there are %+v, %v", listed, err)
	}
	relative, err := volume.Relative(pgdata)
	pgtest.Check(t, err)
	target := filepath.Join(volume.Place, "clone")
	clone, err := driver.Clone(ctx, set.Snapshots[0], "copy-1", target)
	pgtest.Check(t, err)
	if text := read(t, target, relative, "file"); text != "then" {
		t.Errorf("the clone says %s", text)
	}
	pgtest.Check(t, driver.Release(ctx, clone))
	pgtest.Check(t, driver.Delete(ctx, volume, "pgsnap-1"))
	pgtest.Check(t, driver.Delete(ctx, volume, "pgsnap-2"))
	pgtest.Check(t, os.Remove(filepath.Join(pgdata, "file")))
}
