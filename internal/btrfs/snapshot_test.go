package btrfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgsnap/internal/btrfs"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestSnapshotIsReadOnly makes sure that nobody changes what a backup is.
func TestSnapshotIsReadOnly(t *testing.T) {
	_, top := newBtrfs(t)
	volume := resolveOne(t, btrfs.Driver{}, subvolume(t, top.Dir, "data"))
	set, err := btrfs.Driver{}.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	err = os.WriteFile(filepath.Join(set.Snapshots[0].Directory, "file"), nil, 0o600)
	if !errors.Is(err, syscall.EROFS) {
		t.Errorf("a snapshot was written to: %v", err)
	}
}

// TestFarCloneIsMountedByNumber has a subvolume whose path mount options can't
// hold.
func TestFarCloneIsMountedByNumber(t *testing.T) {
	lab, top := newBtrfs(t)
	volume := resolveOne(t, btrfs.Driver{}, subvolume(t, top.Dir, "a,b=c"))
	set, err := btrfs.Driver{}.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	clone, err := btrfs.Driver{}.Clone(t.Context(), set.Snapshots[0], "copy-1", lab.Path("clone"))
	pgtest.Check(t, err)
	if clone.Mount == nil || len(clone.Mount.Options) != 1 || !strings.HasPrefix(clone.Mount.Options[0], "subvolid=") {
		t.Errorf("the clone is to be mounted by %+v", clone.Mount)
	}
}

// TestStoppedAfterMaking cancels while the btrfs program has done its work and
// not yet ended.
func TestStoppedAfterMaking(t *testing.T) {
	lab, top := newBtrfs(t)
	driver := btrfs.Driver{}
	volume := resolveOne(t, driver, subvolume(t, top.Dir, "data"))
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	done := lingerAfterSnapshots(t)
	for what, call := range map[string]func(context.Context) error{
		"Snapshot": func(ctx context.Context) error {
			_, err := driver.Snapshot(ctx, "pgsnap-2", []snap.Volume{volume}, nil)
			return err
		},
		"Clone near": func(ctx context.Context) error {
			_, err := driver.Clone(ctx, set.Snapshots[0], "copy-1", filepath.Join(top.Dir, "near"))
			return err
		},
		"Clone far": func(ctx context.Context) error {
			_, err := driver.Clone(ctx, set.Snapshots[0], "copy-2", lab.Path("far"))
			return err
		},
	} {
		before := subvolumes(t, top.Dir)
		_ = os.Remove(done)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			for t.Context().Err() == nil {
				if _, err := os.Lstat(done); err == nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		start := time.Now()
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled, it says: %v", what, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: cancelled, it took %v", what, took)
		}
		if after := subvolumes(t, top.Dir); after != before {
			t.Errorf("%s: before it there were\n%safter it\n%s", what, before, after)
		}
	}
}

func subvolumes(t *testing.T, dir string) string {
	t.Helper()
	list, err := exec.Command("btrfs", "subvolume", "list", "-o", "--", dir).Output()
	pgtest.Check(t, err)
	var paths strings.Builder
	for line := range strings.Lines(string(list)) {
		_, path, _ := strings.Cut(line, " path ")
		paths.WriteString(path)
	}
	return paths.String()
}

// lingerAfterSnapshots puts a btrfs program in front of the real one, which goes
// on for a minute after it has made a snapshot, and a file that says so.
func lingerAfterSnapshots(t *testing.T) (done string) {
	t.Helper()
	real, err := exec.LookPath("btrfs")
	pgtest.Check(t, err)
	dir := t.TempDir()
	done = filepath.Join(dir, "done")
	script := fmt.Sprintf("#!/bin/sh\n%s \"$@\" || exit\ncase $2 in snapshot) : >%s; sleep 60 ;; esac\n", real, done)
	pgtest.Check(t, os.WriteFile(filepath.Join(dir, "btrfs"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return done
}

// TestForeignSubvolume has a subvolume of somebody else's in the way, which an
// unlucky btrfs snapshot would be put into.
func TestForeignSubvolume(t *testing.T) {
	_, top := newBtrfs(t)
	driver := btrfs.Driver{}
	volume := resolveOne(t, driver, subvolume(t, top.Dir, "data"))
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	content := set.Snapshots[0].Directory
	pgtest.Check(t, driver.Delete(t.Context(), volume, "pgsnap-1"))
	mkdir(t, filepath.Dir(content))
	foreign := subvolume(t, content)
	write(t, "mine", foreign, "file")
	if _, err := driver.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil); err == nil {
		t.Error("Snapshot took a foreign subvolume for its own")
	}
	if err := driver.Delete(t.Context(), volume, "pgsnap-1"); err == nil {
		t.Error("Delete took a foreign subvolume for its own")
	}
	entries, err := os.ReadDir(foreign)
	if err != nil || len(entries) != 1 || read(t, foreign, "file") != "mine" {
		t.Errorf("in the foreign subvolume there are %v, %v", entries, err)
	}
}

// TestMarkOnDirectory has a mark of pgsnap's beside what is no subvolume: it is
// not what was made, and stays.
func TestMarkOnDirectory(t *testing.T) {
	_, top := newBtrfs(t)
	driver := btrfs.Driver{}
	volume := resolveOne(t, driver, subvolume(t, top.Dir, "data"))
	set, err := driver.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	content := set.Snapshots[0].Directory
	run(t, "btrfs", "subvolume", "delete", "--", content)
	write(t, "mine", mkdir(t, content), "file")
	if err := driver.Delete(t.Context(), volume, "pgsnap-1"); err == nil || !strings.Contains(err.Error(), content) {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Lstat(filepath.Join(content, "file")); errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is gone")
	}
	if _, err := driver.Clone(t.Context(), set.Snapshots[0], "copy-1", filepath.Join(top.Dir, "clone")); !errors.Is(err, snap.ErrNoSnapshot) {
		t.Errorf("a clone of it: %v", err)
	}
}
