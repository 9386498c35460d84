package lvm

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"pgsnap/internal/snap"
)

// Commit makes sure that the snapshots held until here, adds what is known only
// now, and has LVM archive the groups' metadata, which Snapshot left out.
func (d Driver) Commit(ctx context.Context, volumes []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	if err := d.checkHeld(volumes, set); err != nil {
		return err
	}
	if len(set.Snapshots) == 0 {
		return nil
	}
	args := append([]string{"lvchange", "--select", "lv_tags!=" + committed, "--addtag", committed}, addTags(metadataTags(metadata))...)
	args = append(args, "--")
	for _, snapshot := range set.Snapshots {
		args = append(args, snapshot.ID)
	}
	out, err := run(ctx, args...)
	if errors.Is(err, errNotFound) {
		return errors.Join(snap.ErrNoSnapshot, err)
	}
	if err == nil && bytes.Count(out, []byte(" changed.")) < len(set.Snapshots) {
		return recommit(ctx, set, metadata)
	}
	return err
}

// recommit is the second Commit of a set: values that are there already are
// replaced.
func recommit(ctx context.Context, set snap.Set, metadata snap.Metadata) error {
	tags := metadataTags(metadata)
	for _, snapshot := range set.Snapshots {
		group, _ := split(snapshot.ID)
		rows, err := report(ctx, group)
		if err != nil {
			return err
		}
		index := slices.IndexFunc(rows, func(r row) bool { return r.id() == snapshot.ID && r.marked() })
		if index < 0 {
			return errors.Join(snap.ErrNoSnapshot, errors.New(snapshot.ID))
		}
		was := rows[index].tags()
		args := []string{"lvchange"}
		for _, tag := range replacedTags(was, metadata) {
			if !slices.Contains(tags, tag) {
				args = append(args, "--deltag", tag)
			}
		}
		for _, tag := range tags {
			if !slices.Contains(was, tag) {
				args = append(args, "--addtag", tag)
			}
		}
		if len(args) == 1 {
			continue
		}
		if _, err := run(ctx, append(args, "--", snapshot.ID)...); err != nil {
			return err
		}
	}
	return nil
}
