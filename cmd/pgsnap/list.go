package main

import (
	"fmt"
	"os"
	"slices"

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
	failures := snap.MarkLost(a.ctx, backups, allDrivers(loaded))
	for _, problem := range problems {
		failures = append(failures, fmt.Errorf("unreadable record %s: %w", problem.Path, problem.Err))
	}
	for _, failure := range failures {
		fmt.Fprintf(os.Stderr, "pgsnap: warning: %v\n", failure)
	}
	if a.line.JSON {
		return a.printJSON(slices.Concat([]*snap.Backup{}, backups)) // [] rather than null
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
	backup, err := store.Find(a.line.Cluster, c.ID)
	if err != nil {
		return err
	}
	for _, failure := range snap.MarkLost(a.ctx, []*snap.Backup{backup}, allDrivers(loaded)) {
		fmt.Fprintf(os.Stderr, "pgsnap: warning: %v\n", failure)
	}
	if a.line.JSON {
		return a.printJSON(backup)
	}
	a.printBackup(backup, true)
	return nil
}
