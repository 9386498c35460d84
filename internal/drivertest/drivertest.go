// Package drivertest is the contract of snap.Driver as a test: one suite, which
// every driver passes on its real storage.
//
// It knows the storage only by what a Storage brings, and looks at the content
// of a snapshot through a clone, for on most storage there is no other way.
package drivertest

import (
	"testing"

	"pgsnap/internal/snap"
)

// Storage is a driver and its real storage, as the driver's test brings them.
// The functions end the test where they fail.
type Storage struct {
	Driver snap.Driver

	// NewVolume makes an empty volume, whose root is visible at a directory of
	// that name. The volume goes away with the test.
	NewVolume func(t *testing.T, name string) (root string)
	// RemoveVolume removes a volume of which snapshots may exist. It is nil where
	// the storage can't.
	RemoveVolume func(t *testing.T, root string)

	// Inventory says what is on the storage besides the volumes and their own
	// content: a line for each thing, another line once the thing has changed.
	Inventory func(t *testing.T) []string
	// Foreign puts something that is not pgsnap's where the volume's snapshot of
	// that name would be.
	Foreign func(t *testing.T, volume snap.Volume, name string) (remove func())
	// HalfMade leaves behind what a Snapshot leaves that is killed in the middle.
	HalfMade func(t *testing.T, volume snap.Volume, name string)
	// Metadata reads what the volume's snapshot of that name carries. It is nil
	// where Info says that snapshots can't.
	Metadata func(t *testing.T, volume snap.Volume, name string) snap.Metadata

	// Near is a directory where a clone can be without being mounted; empty where
	// there is none.
	Near string
	// Far is a directory on a file system of another kind.
	Far string
	// Elsewhere is a directory that the driver does not claim; empty where it
	// claims all.
	Elsewhere string
}

// Run runs the suite. Each case is a subtest on volumes of its own, and ends with
// nothing on the storage that was not there before.
func Run(t *testing.T, storage Storage) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := begin(t, storage)
			defer f.end()
			c.run(f)
		})
	}
}

var cases = []struct {
	name string
	run  func(*fixture)
}{
	{"Info", info},

	{"Resolve/Root", resolveRoot},
	{"Resolve/Deep", resolveDeep},
	{"Resolve/TwoPathsInOneVolume", resolveTwoPaths},
	{"Resolve/TwoVolumes", resolveTwoVolumes},
	{"Resolve/Elsewhere", resolveElsewhere},
	{"Resolve/Absent", resolveAbsent},
	{"Resolve/Nothing", resolveNothing},

	{"Snapshot/OneVolume", snapshotOne},
	{"Snapshot/TwoVolumes", snapshotTwo},
	{"Snapshot/DeepPath", snapshotDeep},
	{"Snapshot/EmptyVolume", snapshotEmpty},
	{"Snapshot/Instant", snapshotInstant},
	{"Snapshot/SameName", snapshotSameName},
	{"Snapshot/TwoNames", snapshotTwoNames},
	{"Snapshot/Concurrent", snapshotConcurrent},
	{"Snapshot/HalfMade", snapshotHalfMade},
	{"Snapshot/HalfSet", snapshotHalfSet},
	{"Snapshot/ForeignInTheWay", snapshotForeign},
	{"Snapshot/SecondFails", snapshotSecondFails},
	{"Snapshot/SecondIsGone", snapshotSecondGone},
	{"Snapshot/CancelledBefore", snapshotCancelledBefore},
	{"Snapshot/CancelledMeanwhile", snapshotCancelledMeanwhile},

	{"Commit/Adds", commitAdds},
	{"Commit/AnyBytes", commitAnyBytes},
	{"Commit/Twice", commitTwice},
	{"Commit/Absent", commitAbsent},

	{"List/Nothing", listNothing},
	{"List/Own", listOwn},
	{"List/SeveralVolumes", listSeveral},
	{"List/HalfMade", listHalfMade},
	{"List/Foreign", listForeign},

	{"Delete/OneOfTwo", deleteOneOfTwo},
	{"Delete/OneVolumeOfTwo", deleteOneVolume},
	{"Delete/Absent", deleteAbsent},
	{"Delete/Twice", deleteTwice},
	{"Delete/HalfMade", deleteHalfMade},
	{"Delete/Foreign", deleteForeign},
	{"Delete/VolumeGone", deleteVolumeGone},
	{"Delete/Cloned", deleteCloned},

	{"Clone/Near", cloneNear},
	{"Clone/Far", cloneFar},
	{"Clone/Writable", cloneWritable},
	{"Clone/TwoVolumesOneName", cloneTwoVolumes},
	{"Clone/VolumeGone", cloneVolumeGone},
	{"Clone/TargetExists", cloneTargetExists},
	{"Clone/NoSnapshot", cloneNoSnapshot},
	{"Clone/CancelledBefore", cloneCancelledBefore},
	{"Clone/CancelledMeanwhile", cloneCancelledMeanwhile},

	{"Release/Near", releaseNear},
	{"Release/Far", releaseFar},
	{"Release/Twice", releaseTwice},
	{"Release/Absent", releaseAbsent},
	{"Release/Interrupted", releaseInterrupted},
	{"Release/SnapshotGone", releaseSnapshotGone},
	{"Release/OneOfTwo", releaseOneOfTwo},

	{"Names/Odd", oddNames},
	{"Names/Alike", alikeNames},
}

func info(f *fixture) {
	info := f.Driver.Info()
	if info.Name == "" {
		f.t.Error("the driver has no name")
	}
	if again := f.Driver.Info(); again != info {
		f.t.Errorf("Info is %+v, and then %+v", info, again)
	}
	if info.Metadata && f.Metadata == nil {
		f.t.Error("the driver's test does not say how to read metadata")
	}
}
