package reflink_test

import (
	"os"
	"testing"

	"pgsnap/internal/beside"
	"pgsnap/internal/drivertest"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// TestDriver runs the suite where files are copied and where they share blocks.
func TestDriver(t *testing.T) {
	for kind, sizeMiB := range map[string]int{"ext4": 1024, "xfs": 1024, "btrfs": 1024} {
		t.Run(kind, func(t *testing.T) {
			lab, fs := newFileSystem(t, kind, sizeMiB)
			drivertest.Run(t, storageAt(t, reflink.Driver{}, fs.Dir, farFrom(t, lab)))
		})
	}
}

// farFrom is a directory on another file system.
func farFrom(t *testing.T, lab *pgtest.Lab) string {
	t.Helper()
	far, err := lab.Mkdir("far")
	pgtest.Check(t, err)
	return far
}

func newFileSystem(t *testing.T, kind string, sizeMiB int) (*pgtest.Lab, *pgtest.FS) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	lab := pgtest.New(t)
	return lab, pgtest.Mount(t, lab, kind, sizeMiB)
}

// storageAt is any directory.
func storageAt(t *testing.T, driver reflink.Driver, top, far string) drivertest.Storage {
	return drivertest.Storage{Driver: driver, HalfMade: leaveHalf, Far: far}.Directories(t, top)
}

// leaveHalf leaves a mark, and as much of the copy as there is after a while.
func leaveHalf(t *testing.T, volume snap.Volume, name string) {
	t.Helper()
	shelf := beside.Of(volume)
	pgtest.Check(t, shelf.Begin(name, nil))
	pgtest.Check(t, os.Mkdir(shelf.Content(name), 0o700))
	pgtest.Check(t, os.WriteFile(shelf.Content(name)+"/half a file", []byte("x"), 0o600))
}
