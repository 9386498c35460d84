package main

import (
	"errors"
	"fmt"

	"pgsnap/internal/catalog"
	"pgsnap/internal/config"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

type listCommand struct{}

func (c *listCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	backups, problems, err := store.List(a.line.Cluster)
	if err != nil {
		return err
	}
	if len(backups) == 0 && a.line.Cluster != "" {
		if _, _, err := loaded.Cluster(a.line.Cluster); err != nil {
			return err
		}
	}
	a.markLost(loaded, backups)
	if err := a.printBackups(store, backups); err != nil {
		return err
	}
	var unreadable error
	for _, problem := range problems {
		unreadable = errors.Join(unreadable, fault.Wrap(problem.Err, fault.Storage, "see what is in it, and move it out of the catalog", "unreadable record %s", problem.Path))
	}
	return unreadable
}

// markLost sees which backups are lost; where the storage can't be asked it warns.
func (a *app) markLost(loaded config.Config, backups []*snap.Backup) {
	for _, failure := range snap.MarkLost(a.ctx, backups, allDrivers(loaded)) {
		fmt.Fprintf(a.errors, "pgsnap: warning: %v\n", failure)
	}
}

// find is store.Find with the storage's word on what is lost.
func (a *app) find(loaded config.Config, store catalog.Catalog, id string) (*snap.Backup, error) {
	return store.Find(a.line.Cluster, id, func(backups []*snap.Backup) { a.markLost(loaded, backups) })
}

func (a *app) printBackups(store catalog.Catalog, backups []*snap.Backup) error {
	if a.line.JSON {
		if backups == nil {
			backups = []*snap.Backup{} // [] rather than null
		}
		return a.printJSON(backups)
	}
	if len(backups) == 0 {
		a.printf("no backups in %s\n", store.Root())
		return nil
	}
	rows := [][]string{{"ID", "CLUSTER", "STATUS", "STARTED", "IN BACKUP MODE", "WAL", "LABEL"}}
	for _, b := range backups {
		window := ""
		if spent, known := b.Seconds[snap.BackupMode]; known {
			window = secondsText(spent)
		}
		rows = append(rows, []string{b.ID, b.Cluster, string(b.Status), timeText(b.StartedAt), window, bytesText(b.WALBytes), b.Label})
	}
	a.table(rows)
	return nil
}

type showCommand struct {
	ID string `arg:"" help:"Backup to show, or latest."`
}

func (c *showCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	backup, err := a.find(loaded, store, c.ID)
	if err != nil {
		return err
	}
	if a.line.JSON {
		return a.printJSON(backup)
	}
	a.printBackup(backup, true)
	return nil
}
