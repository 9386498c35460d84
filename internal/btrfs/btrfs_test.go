package btrfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pgsnap/internal/beside"
	"pgsnap/internal/btrfs"
	"pgsnap/internal/command"
	"pgsnap/internal/drivertest"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func TestDriver(t *testing.T) {
	lab, fs := newBtrfs(t)
	drivertest.Run(t, storageAt(t, btrfs.Driver{}, fs.Dir, farFrom(t, lab)))
}

// TestDriverWithDirectory runs the suite with the snapshots in a directory that
// the configuration names.
func TestDriverWithDirectory(t *testing.T) {
	lab, fs := newBtrfs(t)
	directory := filepath.Join(fs.Dir, "snap shots")
	pgtest.Check(t, os.Mkdir(directory, 0o700))
	drivertest.Run(t, storageAt(t, btrfs.Driver{Directory: directory}, fs.Dir, farFrom(t, lab)))
}

// farFrom is a directory on another file system.
func farFrom(t *testing.T, lab *pgtest.Lab) string {
	t.Helper()
	far, err := lab.Mkdir("far")
	pgtest.Check(t, err)
	return far
}

func newBtrfs(t *testing.T) (*pgtest.Lab, *pgtest.FS) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	lab := pgtest.New(t)
	return lab, pgtest.Mount(t, lab, "btrfs", 1024)
}

// storageAt has subvolumes for volumes.
func storageAt(t *testing.T, driver btrfs.Driver, top, far string) drivertest.Storage {
	return drivertest.Storage{
		Driver: driver, Far: far, Elsewhere: far,
		NewVolume: func(t *testing.T, name string) string {
			root := filepath.Join(top, name)
			run(t, "btrfs", "subvolume", "create", "--", root)
			return root
		},
		RemoveVolume: removeSubvolume,
		HalfMade:     leaveHalf,
	}.Directories(t, top)
}

func run(t *testing.T, args ...string) {
	t.Helper()
	_, err := command.Run(t.Context(), args)
	pgtest.Check(t, err)
}

func removeSubvolume(t *testing.T, root string) {
	if _, err := os.Lstat(root); err != nil {
		return
	}
	if err := exec.Command("btrfs", "subvolume", "delete", "--", root).Run(); err != nil {
		t.Error(err)
	}
}

// leaveHalf leaves the snapshot with the mark from before it was cut.
func leaveHalf(t *testing.T, volume snap.Volume, name string) {
	t.Helper()
	shelf := beside.Of(volume)
	pgtest.Check(t, shelf.Begin(name, nil))
	run(t, "btrfs", "subvolume", "snapshot", "-r", "--", volume.Root, shelf.Content(name))
}
