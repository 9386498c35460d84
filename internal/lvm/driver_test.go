package lvm

import (
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

// TestThinTogether runs the suite on thin volumes with one instant over several.
func TestThinTogether(t *testing.T) {
	g := newGroup(t, "vg-together", "pool", "ext4", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{Instant: true, Holder: holder(t)}))
}

// TestClassicTogether runs a part of the suite on classic volumes with one instant
// over several.
func TestClassicTogether(t *testing.T) {
	g := newGroup(t, "together", "", "xfs", needLab(t)...)
	drivertest.Run(t, g.storage(Driver{Instant: true, Holder: holder(t)}))
}
