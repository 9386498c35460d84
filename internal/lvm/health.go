package lvm

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// checkRoom makes sure that volumes can be snapshotted and that there is room for
// it: in their thin pools, and in the groups for classic snapshots.
func (d Driver) checkRoom(volumes, rows []row) error {
	needed := map[string]float64{}
	for _, volume := range volumes {
		if volume.is(volume.Role, "thicksnapshot") {
			return fault.New(fault.Storage, "restore to a volume of its own", "%s is itself a snapshot, and LVM makes none of those", volume.id())
		}
		if volume.Merging == "1" {
			return fault.New(fault.Storage, "wait until lvs shows the merge as done", "a snapshot is being merged into %s", volume.id())
		}
		if !volume.thin() {
			needed[volume.Group] += d.classicBytes(volume)
			if free := number(volume.GroupFree); needed[volume.Group] > free {
				return fault.New(fault.Storage, hintSpace, "volume group %s has %s free, but classic snapshots of %s of its volumes need %s",
					volume.Group, bytesText(free), d.size(), bytesText(needed[volume.Group]))
			}
			continue
		}
		index := slices.IndexFunc(rows, func(r row) bool { return r.Group == volume.Group && r.Name == volume.Pool })
		if index < 0 {
			return fault.New(fault.Storage, "see what lvs -a says of it", "lvs does not show the thin pool %s/%s of %s", volume.Group, volume.Pool, volume.id())
		}
		if err := d.checkPool(rows[index]); err != nil {
			return err
		}
	}
	return nil
}

// checkPool holds a thin pool against the limits.
func (d Driver) checkPool(pool row) error {
	switch {
	case pool.Health != "":
		return fault.New(fault.Storage, hintPool+"; lvconvert --repair mends damaged metadata", "thin pool %s is not well: %s", pool.id(), pool.Health)
	case pool.CheckNeeded == "1":
		return fault.New(fault.Storage, "deactivate it and run lvconvert --repair "+pool.id(), "the metadata of thin pool %s need a check", pool.id())
	}
	metadata := min(limit(d.MaxMetadataPercent), lvmLimit(number(pool.MetadataSize)))
	for _, level := range []struct {
		what, percent string
		limit         float64
		key, hint     string
	}{
		{"data", pool.DataPercent, limit(d.MaxDataPercent), "max_data_percent", "lvextend -L+SIZE " + pool.id()},
		{"metadata", pool.MetadataPercent, metadata, "max_metadata_percent", "lvextend --poolmetadatasize +SIZE " + pool.id()},
	} {
		if number(level.percent) > level.limit {
			return fault.New(fault.Storage, "extend it ("+level.hint+"), delete old backups, or raise "+level.key+" in [storage.lvm]",
				"the %s of thin pool %s is %s%% full, and the limit is %.4g%%", level.what, pool.id(), level.percent, level.limit)
		}
	}
	return nil
}

// lvmLimit is above which percentage LVM itself makes no snapshot: it wants 4 MiB of
// the metadata free, or a quarter of them if that is less
// (pool_metadata_min_threshold in lib/metadata/thin_manip.c).
func lvmLimit(metadataBytes float64) float64 {
	if metadataBytes == 0 {
		return 100
	}
	return 100 - min(25, 100*(4<<20)/metadataBytes)
}

// classicBytes is how much of the group a classic snapshot takes. It is 0 where
// only LVM can tell, which then does so when it makes the snapshot.
func (d Driver) classicBytes(volume row) float64 {
	share, ok := strings.CutSuffix(d.size(), "%ORIGIN")
	if ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil {
			return 0
		}
		return number(volume.Size) * percent / 100
	}
	size, err := ParseSize(d.size())
	if err != nil {
		return 0
	}
	return size
}

// ParseSize reads a size in bytes as lvcreate's -L takes it: a number and one of
// the units b, s (512 bytes), k, m, g, t, p, e; without one it is megabytes. Small
// and capital letters are the same there (SIZE in lvcreate(8)).
func ParseSize(text string) (float64, error) {
	units := map[byte]float64{'b': 1, 's': 512, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40, 'p': 1 << 50, 'e': 1 << 60}
	unit, digits := units['m'], strings.ToLower(text)
	if digits != "" {
		if known, is := units[digits[len(digits)-1]]; is {
			unit, digits = known, digits[:len(digits)-1]
		}
	}
	value, err := strconv.ParseFloat(digits, 64)
	return value * unit, err
}

func bytesText(bytes float64) string {
	return strconv.FormatFloat(bytes/(1<<30), 'f', 2, 64) + " GiB"
}

// checkHeld makes sure that what was cut is still whole: no pool failed and no
// classic snapshot overflowed since. It asks the kernel, with no program.
func (d Driver) checkHeld(volumes []snap.Volume, set snap.Set) error {
	if len(set.Snapshots) == 0 {
		return nil
	}
	dm, err := openControl()
	if err != nil {
		return err
	}
	defer dm.close()
	for _, snapshot := range set.Snapshots {
		index := slices.IndexFunc(volumes, func(v snap.Volume) bool { return v.ID == snapshot.VolumeID })
		if index < 0 {
			continue
		}
		if volume := volumes[index]; isThin(volume) {
			err = checkPoolHeld(dm, volume)
		} else {
			err = checkClassicHeld(dm, snapshot)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// poolDevice is the device-mapper's name of a volume's thin pool; the layer is
// what the volumes lie on.
func poolDevice(volume snap.Volume) string {
	group, pool := split(volume.Place)
	return deviceName(group, pool) + "-tpool"
}

// checkPoolHeld reads the pool's status: "Fail", or its numbers and then its mode
// (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
func checkPoolHeld(dm control, volume snap.Volume) error {
	status, err := dm.status(poolDevice(volume))
	if err != nil {
		return err
	}
	words := strings.Fields(status.text)
	for _, bad := range []struct{ word, what string }{
		{"Fail", "failed"}, {"Error", "failed"}, {"out_of_data_space", "ran out of data space"},
		{"ro", "has read-only metadata, for want of space or after an error"}, {"needs_check", "needs a check of its metadata"},
	} {
		if slices.Contains(words, bad.word) {
			return &fault.Error{
				Kind: fault.Storage, Hint: hintPool, Err: errPoolFull,
				Message: "during the backup, thin pool " + volume.Place + " of " + volume.ID + " " + bad.what,
			}
		}
	}
	return nil
}

// checkClassicHeld reads the snapshot's status: what it holds and what it could,
// or a word for what became of it (snapshot_status in drivers/md/dm-snap.c).
func checkClassicHeld(dm control, snapshot snap.Snapshot) error {
	group, name := split(snapshot.ID)
	status, err := dm.status(deviceName(group, name))
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	if err != nil {
		return err
	}
	if status.kind != "snapshot" || !strings.Contains(status.text, "/") {
		return fault.New(fault.Storage, hintClassic, "during the backup, the classic snapshot %s overflowed or broke (%s)", snapshot.ID, status.text)
	}
	return nil
}

const hintClassic = "give it more room (size in [storage.lvm]), or convert the volumes to thin ones"
