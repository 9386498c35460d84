package main

import (
	"errors"

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
		if id == "latest" {
			return fault.New(fault.Usage, "pgsnap list shows the ids", "delete takes ids, not %q", id)
		}
		backup, err := store.Find(a.line.Cluster, id)
		if err != nil {
			return err
		}
		if err := c.delete(a, loaded, store, backup); err != nil {
			return err
		}
		gone = append(gone, deleted{backup.ID, backup.Cluster})
		if !a.line.JSON {
			a.printf("deleted %s of cluster %s\n", backup.ID, backup.Cluster)
		}
	}
	if a.line.JSON {
		return a.printJSON(gone)
	}
	return nil
}

func (c *deleteCommand) delete(a *app, loaded config.Config, store catalog.Catalog, backup *snap.Backup) error {
	record, err := store.Open(backup)
	if err != nil {
		return err
	}
	defer record.Close()
	drivers := allDrivers(loaded)
	if failures := snap.MarkLost(a.ctx, []*snap.Backup{backup}, drivers); len(failures) > 0 {
		return errors.Join(failures...)
	}
	if backup.Status == snap.Lost && !c.Lost {
		return fault.New(fault.Storage, "if their file system is only not mounted, mount it; if they are gone for good: pgsnap delete --lost "+backup.ID,
			"snapshots of backup %s are not where they were made", backup.ID)
	}
	backup.Status = snap.Deleting
	if err := record.Save(backup); err != nil {
		return err
	}
	if err := snap.DeleteSnapshots(a.ctx, backup, drivers); err != nil {
		return err
	}
	return record.Remove()
}
