package zfs

import (
	"testing"

	"pgsnap/internal/drivertest"
)

// TestDatasets runs the suite on datasets of one pool.
func TestDatasets(t *testing.T) {
	p := newPool(t, "tank", "zfs")
	drivertest.Run(t, p.storage(Driver{}))
}

// TestZvols runs the suite on zvols that carry XFS.
func TestZvols(t *testing.T) {
	p := newPool(t, "volumes", "xfs")
	drivertest.Run(t, p.storage(Driver{}))
}
