package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"pgsnap/internal/snap"
)

// Commit holds the snapshots, so that nobody's pruning takes them away, and adds
// what is known only now. Each change waits for a transaction group of its pool, so
// they are made together.
func (d Driver) Commit(ctx context.Context, _ []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	properties, err := encode(metadata)
	if err != nil {
		return err
	}
	// No context of the group: a failure must not stop the others half way.
	var group errgroup.Group
	const together = 4
	group.SetLimit(together)
	var names []string
	for _, snapshot := range set.Snapshots {
		names = append(names, snapshot.ID)
		group.Go(func() error {
			own := append(slices.Clone(properties), propVolume+"="+snapshot.VolumeID)
			return tool{}.set(ctx, own, snapshot.ID)
		})
	}
	for _, pool := range poolsOf(names) {
		group.Go(func() error {
			return tool{}.hold(ctx, slices.DeleteFunc(slices.Clone(names), func(name string) bool { return poolOf(name) != pool })...)
		})
	}
	err = group.Wait()
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("%w: %w", snap.ErrNoSnapshot, err)
	}
	return err
}
