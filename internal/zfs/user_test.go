package zfs

import (
	"context"
	"errors"
	"fmt"

	"pgsnap/internal/snap"
)

// takeAndDelete does on a path what a take and a delete do.
func takeAndDelete(path string) error {
	ctx, d := context.Background(), Driver{}
	volumes, err := d.Resolve(ctx, []snap.Path{dataAt(path)})
	if err != nil {
		return err
	}
	set, err := d.Snapshot(ctx, newName(), volumes, snap.Metadata{"id": "x"})
	if err != nil {
		return err
	}
	err = d.Commit(ctx, volumes, set, snap.Metadata{"stop-lsn": "0/1"})
	all, listErr := d.List(ctx, volumes)
	if len(all) != 1 || !all[0].Complete {
		listErr = errors.Join(listErr, fmt.Errorf("listed: %+v", all))
	}
	return errors.Join(err, listErr, d.Delete(ctx, volumes[0], set.Snapshots[0].Name))
}
