package main

import (
	"pgsnap/internal/catalog"
	"pgsnap/internal/config"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

type deleteCommand struct {
	ID []string `arg:"" help:"Backups to delete."`
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
		if err := a.delete(loaded, store, backup); err != nil {
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

func (a *app) delete(loaded config.Config, store catalog.Catalog, backup *snap.Backup) error {
	record, err := store.Open(backup)
	if err != nil {
		return err
	}
	defer record.Close()
	backup.Status = snap.Deleting
	if err := record.Save(backup); err != nil {
		return err
	}
	if err := snap.DeleteSnapshots(a.ctx, backup, allDrivers(loaded)); err != nil {
		return err
	}
	return record.Remove()
}
