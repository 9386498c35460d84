package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// cutTogether cuts all volumes at one instant, at which all are suspended.
//
// LVM can't make a thin snapshot of a volume that is suspended already: lvcreate
// then leaves its message to the pool unsent, and the pool's transactions out of
// step. So a snapshot of each is made before, and at the instant the pool makes its
// device anew under the same number; LVM's own records stay true. A classic one is
// made while its origin is suspended, which LVM then resumes: what the others are
// suspended with is of the same instant still.
func (d Driver) cutTogether(ctx context.Context, plans []plan, made *[]plan) (snap.Set, error) {
	if err := d.checkTogether(plans); err != nil {
		return snap.Set{}, err
	}
	for _, p := range plans {
		if p.thin {
			if err := makeOne(ctx, p, made, d.cutArgs(p)); err != nil {
				return snap.Set{}, err
			}
		}
	}
	job, err := jobFor(ctx, plans)
	if err != nil {
		return snap.Set{}, err
	}
	held, err := d.hold(ctx, job)
	if err != nil {
		return snap.Set{}, err
	}
	at := now() // which thin volumes alone may be ahead of by the start of a program
	for _, p := range plans {
		if !p.thin && err == nil {
			err = makeOne(ctx, p, made, d.cutArgs(p))
		}
	}
	if err := errors.Join(err, held.release()); err != nil {
		return snap.Set{}, err
	}
	return stamp(ctx, plans, at)
}

// stamp says on the snapshots when they were cut. Only that makes them complete.
func stamp(ctx context.Context, plans []plan, at time.Time) (snap.Set, error) {
	set := snap.Set{Atomic: true}
	args := append([]string{"lvchange", "--autobackup", "n"}, addTags(ownTag(tagCut, cutText(at)))...)
	args = append(args, "--")
	for _, p := range plans {
		p.snapshot.CutAt = at
		set.Snapshots = append(set.Snapshots, p.snapshot)
		args = append(args, p.id)
	}
	_, err := run(ctx, args...)
	return set, err
}

// jobFor is what the holder has to do: the devices to suspend, and the messages for
// the pools.
func jobFor(ctx context.Context, plans []plan) (job, error) {
	j := job{Limit: holdLimit}
	var groups []string
	for _, p := range plans {
		group, origin := split(p.volume.ID)
		j.Devices = append(j.Devices, deviceName(group, origin))
		j.Wait = j.Wait || !p.thin
		groups = append(groups, group)
	}
	slices.Sort(groups)
	rows, err := ask(ctx, thinFields, slices.Compact(groups))
	if err != nil {
		return j, err
	}
	for _, p := range plans {
		if !p.thin {
			continue
		}
		origin, isOrigin := thinNumber(rows, p.volume.ID)
		snapshot, isSnapshot := thinNumber(rows, p.id)
		if !isOrigin || !isSnapshot {
			return j, fmt.Errorf("lvs does not tell the numbers of %s and %s in their pool", p.volume.ID, p.id)
		}
		// thin-provisioning.rst of the kernel's documentation, "Pool messages".
		pool := poolDevice(p.volume)
		j.Messages = append(j.Messages, poolMessage{pool, "delete " + snapshot}, poolMessage{pool, "create_snap " + snapshot + " " + origin})
	}
	return j, nil
}

func thinNumber(rows []row, id string) (string, bool) {
	index := slices.IndexFunc(rows, func(r row) bool { return r.id() == id })
	if index < 0 {
		return "", false
	}
	return rows[index].ThinID, rows[index].ThinID != ""
}

// systemPaths are what lvcreate reads and writes (lvm.conf(5): archive_dir,
// locking_dir). On a volume that is suspended, it would wait for itself.
var systemPaths = []string{"/", "/usr", "/etc", "/etc/lvm", "/run", "/run/lock", "/var", "/tmp"}

func (d Driver) checkTogether(plans []plan) error {
	if len(d.Holder) == 0 {
		return errors.New("there is no program to hold the volumes with")
	}
	table, err := mount.Read()
	if err != nil {
		return err
	}
	for _, path := range systemPaths {
		on, err := table.Of(path)
		if err != nil {
			continue // there is no such path
		}
		for _, p := range plans {
			group, origin := split(p.volume.ID)
			if !p.thin && strings.TrimPrefix(on.Source, "/dev/mapper/") == deviceName(group, origin) {
				return fault.New(fault.Usage, "set instant = false in [storage.lvm], or move the cluster to volumes of its own",
					"one instant over several volumes is not possible: %s is on %s too, and LVM needs it meanwhile", path, p.volume.ID)
			}
		}
	}
	return nil
}
