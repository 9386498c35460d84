package snap

import (
	"context"
	"errors"
	"slices"

	"pgsnap/internal/fault"
)

// DeleteSnapshots removes every snapshot that a backup made or meant to make. It
// goes on past a failure, so as to leave as little as it can; but one in use ends
// it. The volume with the data directory is first: what uses a backup uses that
// one, so that a backup in use stays whole.
func DeleteSnapshots(ctx context.Context, b *Backup, drivers []Driver) error {
	var failures error
	for _, volume := range slices.Backward(b.Volumes) {
		err := deleteSnapshot(ctx, volume, b.SnapshotName, drivers)
		failures = errors.Join(failures, err)
		if fault.KindOf(err) == fault.Busy {
			break
		}
	}
	return failures
}

func deleteSnapshot(ctx context.Context, volume Volume, name string, drivers []Driver) error {
	index := slices.IndexFunc(drivers, func(d Driver) bool { return d.Info().Name == volume.Driver })
	if index < 0 {
		return fault.New(fault.Usage, "use a pgsnap that has it", "volume %s is of driver %s, which this pgsnap does not have", volume.ID, volume.Driver)
	}
	err := drivers[index].Delete(ctx, volume, name)
	kind := fault.KindOf(err)
	if kind == fault.Failed {
		kind = fault.Storage
	}
	return fault.Wrap(err, kind, "", "delete snapshot %s of %s", name, volume.ID)
}
