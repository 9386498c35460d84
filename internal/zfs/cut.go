package zfs

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// Snapshot cuts all volumes of a pool at one instant, and several pools one after
// another. The snapshots are durable when it returns (dsl_sync_task in
// module/zfs/dsl_synctask.c waits for the transaction group).
func (d Driver) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (snap.Set, error) {
	if err := context.Cause(ctx); err != nil {
		return snap.Set{}, err
	}
	c, err := newCut(name, volumes, metadata)
	if err != nil {
		return snap.Set{}, err
	}
	set, err := d.cutAll(ctx, c)
	if errors.Is(err, errExists) {
		// Looked for only now: it would cost the window the time of a zfs get.
		set, err = d.again(ctx, c)
	}
	return set, err
}

// again cuts under a name that exists: a whole set is kept, and of a part of one,
// which is of another window, nothing.
func (d Driver) again(ctx context.Context, c cut) (snap.Set, error) {
	all, err := d.find(ctx, c.volumes)
	if err != nil {
		return snap.Set{}, err
	}
	all = slices.DeleteFunc(all, func(f found) bool { return f.Name != c.name })
	if whole, names := c.wholeSet(all); len(whole) == len(c.volumes) {
		atomic, err := sameInstant(ctx, names)
		return snap.Set{Snapshots: whole, Atomic: atomic}, err
	}
	for _, part := range all {
		if err := d.Delete(ctx, snap.Volume{ID: part.VolumeID}, c.name); err != nil {
			return snap.Set{}, err
		}
	}
	set, err := d.cutAll(ctx, c)
	if errors.Is(err, errExists) {
		err = fault.Wrap(err, fault.Storage, "rename or destroy it", "a snapshot that is not pgsnap's is in the way")
	}
	return set, err
}

// wholeSet are the complete ones of snapshots in the order of the volumes, and
// where they are.
func (c cut) wholeSet(all []found) (set []snap.Snapshot, names []string) {
	for _, volume := range c.volumes {
		index := slices.IndexFunc(all, func(f found) bool { return f.VolumeID == volume.ID && f.Complete })
		if index >= 0 {
			set, names = append(set, all[index].Snapshot), append(names, all[index].name)
		}
	}
	return set, names
}

// sameInstant tells whether snapshots were cut in one transaction group of one pool
// (createtxg in zfsprops(7)): that is the state which it wrote.
func sameInstant(ctx context.Context, names []string) (bool, error) {
	if len(poolsOf(names)) > 1 {
		return false, nil
	}
	things, err := tool{}.get(ctx, names, "createtxg")
	for _, one := range things {
		if one.properties["createtxg"] != things[0].properties["createtxg"] {
			return false, err
		}
	}
	return err == nil, err
}

// cut is one call of Snapshot: all that need not be done while the server waits.
type cut struct {
	name       string
	volumes    []snap.Volume
	snapshots  []snap.Snapshot
	properties []string
	// flush are the roots of file systems on zvols, by the zvol.
	flush map[string]string
}

func newCut(name string, volumes []snap.Volume, metadata snap.Metadata) (cut, error) {
	c := cut{name: name, volumes: volumes, flush: map[string]string{}}
	data, err := encode(metadata)
	if err != nil {
		return c, err
	}
	c.properties = append([]string{propSnapshot + "=" + name}, data...)
	table, err := mount.Read()
	if err != nil {
		return c, err
	}
	for _, volume := range volumes {
		onZvol, err := checkMounted(table, volume)
		if err != nil {
			return c, err
		}
		if onZvol {
			c.flush[volume.ID] = volume.Root
		}
		c.snapshots = append(c.snapshots, newSnapshot(table, volume, name))
	}
	return c, nil
}

// pools are the volumes by pool, the pool with the last volume last.
func (c cut) pools() [][]int {
	var names []string
	for index := len(c.volumes) - 1; index >= 0; index-- {
		if pool := poolOf(c.volumes[index].ID); !slices.Contains(names, pool) {
			names = append(names, pool)
		}
	}
	slices.Reverse(names)
	pools := make([][]int, len(names))
	for index, volume := range c.volumes {
		at := slices.Index(names, poolOf(volume.ID))
		pools[at] = append(pools[at], index)
	}
	return pools
}

// cutAll makes all the snapshots or none. It leaves alone what was there before.
func (d Driver) cutAll(ctx context.Context, c cut) (set snap.Set, err error) {
	var tried []string
	defer func() {
		if err == nil {
			return
		}
		set, err = snap.Set{}, errors.Join(err, undo(context.WithoutCancel(ctx), tried))
	}()
	pools := c.pools()
	set = snap.Set{Snapshots: slices.Clone(c.snapshots), Atomic: len(pools) == 1}
	for _, pool := range pools {
		var datasets []string
		for _, index := range pool {
			datasets = append(datasets, c.volumes[index].ID)
			if err := c.flushOne(c.volumes[index]); err != nil {
				return set, err
			}
		}
		at := time.Now().UTC().Truncate(time.Microsecond)
		err := tool{}.snapshot(ctx, c.name, datasets, append(c.properties, propCut+"="+at.Format(time.RFC3339Nano)))
		if err == nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, errExists) {
			return set, err // none of this pool was made, and what is there is older
		}
		for _, dataset := range datasets {
			tried = append(tried, dataset+"@"+c.name)
		}
		if err != nil {
			return set, err
		}
		for _, index := range pool {
			set.Snapshots[index].CutAt, set.Snapshots[index].Complete = at, true
		}
	}
	return set, nil
}

// undo destroys what was made of snapshots that were to be made.
func undo(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	made, err := describeAll(ctx, names...)
	for _, one := range made {
		err = errors.Join(err, one.remove(ctx))
	}
	return err
}

// flushOne has the file system on a zvol write what it has. What was fsynced is on
// the zvol without that, and the journal makes the rest whole; but files that nobody
// fsyncs, such as one that an administrator has just edited, are then there as well.
func (c cut) flushOne(volume snap.Volume) error {
	root, onZvol := c.flush[volume.ID]
	if !onZvol {
		return nil
	}
	handle, err := os.Open(root)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(handle.Fd())), handle.Close())
}
