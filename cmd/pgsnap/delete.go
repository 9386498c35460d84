package main

import (
	"errors"
	"syscall"

	"pgsnap/internal/catalog"
	"pgsnap/internal/config"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

type deleteCommand struct {
	ID   []string `arg:"" help:"Backups to delete."`
	Lost bool     `help:"Delete also the record of a backup whose snapshots are not there any more."`
}

// deleted is what delete --json prints for each backup.
type deleted struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
}

func (c *deleteCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	gone := []deleted{}
	for _, id := range c.ID {
		var backup *snap.Backup
		if backup, err = c.delete(a, loaded, store, id); err != nil {
			break // what was deleted before is still told
		}
		gone = append(gone, deleted{backup.ID, backup.Cluster})
		if !a.line.JSON {
			a.printf("deleted %s of cluster %s\n", backup.ID, backup.Cluster)
		}
	}
	if a.line.JSON && (len(gone) > 0 || err == nil) {
		err = errors.Join(err, a.printJSON(gone))
	}
	return err
}

func (c *deleteCommand) delete(a *app, loaded config.Config, store catalog.Catalog, id string) (*snap.Backup, error) {
	if id == "latest" {
		return nil, fault.New(fault.Usage, "pgsnap list shows the ids", "delete takes ids, not %q", id)
	}
	backup, err := a.find(loaded, store, id)
	if err != nil {
		return nil, err
	}
	record, err := store.Open(backup)
	if err != nil {
		return nil, err
	}
	defer record.Close()
	if backup.Status == snap.Lost && !c.Lost {
		return nil, fault.New(fault.Storage, "if their file system is only not mounted, mount it; if they are gone for good: pgsnap delete --lost "+id,
			"snapshots of backup %s are not where they were made", id)
	}
	return backup, c.remove(a, allDrivers(loaded), record, backup)
}

// remove removes the snapshots, and then the record. A complete backup of which
// nothing could be removed stays complete.
func (c *deleteCommand) remove(a *app, drivers []snap.Driver, record *catalog.Record, backup *snap.Backup) error {
	before := backup.Status
	backup.Status = snap.Deleting
	// On a full disk deleting is the way out, so it goes on without its mark; cut
	// short, the backup then reads as lost.
	if err := record.Save(backup); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	err := snap.DeleteSnapshots(a.ctx, backup, drivers)
	if err == nil {
		return record.Remove()
	}
	backup.Status = before
	if before != snap.Complete || len(snap.MarkLost(a.ctx, []*snap.Backup{backup}, drivers)) > 0 || backup.Status != snap.Complete {
		return err
	}
	return errors.Join(err, record.Save(backup))
}
