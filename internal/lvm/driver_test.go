package lvm

import (
	"os"
	"testing"

	"pgsnap/internal/drivertest"
)

// TestThin runs the suite on thin volumes.
func TestThin(t *testing.T) {
	g := newGroup(t, "vg-thin", "pool-0", "xfs", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{}))
}

// TestClassic runs the suite on classic volumes.
func TestClassic(t *testing.T) {
	g := newGroup(t, "vg.classic", "", "ext4", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{}))
}

// allVariable asks for the tests that repeat much of the others.
const allVariable = "PGSNAP_LAB_ALL"

func needAll(t *testing.T) {
	t.Helper()
	if os.Getenv(allVariable) == "" {
		t.Skip("long, and much of it is TestThin and TestClassic again: set " + allVariable + "=1")
	}
}

// TestThinTogether runs the suite on thin volumes with one instant over several.
func TestThinTogether(t *testing.T) {
	needAll(t)
	g := newGroup(t, "vg-together", "pool", "ext4", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{Instant: true, Holder: holder(t)}))
}

// TestClassicTogether runs the suite on classic volumes with one instant over
// several.
func TestClassicTogether(t *testing.T) {
	needAll(t)
	g := newGroup(t, "together", "", "xfs", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{Instant: true, Holder: holder(t)}))
}
