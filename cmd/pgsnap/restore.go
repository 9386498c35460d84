package main

import (
	"fmt"
	"strings"
	"time"

	"pgsnap/internal/restore"
)

type restoreCommand struct {
	ID         string        `arg:"" help:"Backup to restore, or latest."`
	To         string        `help:"Directory to restore to, empty or not there yet; the data directory is DIR/data." required:"" placeholder:"DIR"`
	Tablespace []string      `help:"Put the tablespace at OLD to NEW instead of below DIR; may be repeated." placeholder:"OLD=NEW" sep:"none"`
	Start      bool          `help:"Start the server and wait until it accepts connections."`
	Port       int           `help:"Port of the copy (default: the original's, or the next one free)." placeholder:"PORT"`
	Isolate    bool          `help:"Own port and socket directory, no archiving, no replication (default: yes)." default:"true" negatable:""`
	Timeout    time.Duration `help:"How long the server may take to be ready (default: ${default})." default:"1h"`
}

func (c *restoreCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	mappings, err := restore.ParseMappings(c.Tablespace)
	if err != nil {
		return err
	}
	backup, err := a.find(loaded, store, c.ID)
	if err != nil {
		return err
	}
	restorer := restore.Restorer{Catalog: store, Drivers: allDrivers(loaded), Progress: a.progress.show}
	result, err := restorer.Restore(a.ctx, backup, restore.Options{
		Destination: c.To, Tablespaces: mappings, Port: c.Port, Isolate: c.Isolate,
		Start: c.Start, StartTimeout: c.Timeout, BinDirectory: loaded.Clusters[backup.Cluster].BinDirectory,
	})
	if err != nil {
		return err
	}
	a.progress.clear()
	if a.line.JSON {
		return a.printJSON(result)
	}
	a.printCopy(result)
	return nil
}

func (a *app) printCopy(r *restore.Result) {
	a.printf("restored backup %s of cluster %s to %s\n", r.Backup, r.Cluster, r.Destination)
	var tablespaces []string
	for _, tablespace := range r.Tablespaces {
		tablespaces = append(tablespaces, fmt.Sprintf("%s  %s  →  %s", tablespace.Name, tablespace.Old, tablespace.New))
	}
	state := "not started; start it with: " + r.StartCommand()
	if r.PID != 0 {
		state = fmt.Sprintf("accepts connections, process %d, timeline %d", r.PID, r.Timeline)
	}
	isolated := ""
	if r.Isolated {
		isolated = "yes: own port and socket, archiving and replication off (see postgresql.auto.conf)"
	}
	a.facts([][2]string{
		{"data", r.DataDirectory},
		{"tablespaces", strings.Join(tablespaces, "\n")},
		{"server", state},
		{"connect", r.ConnectCommand()},
		{"log", r.Log},
		{"isolated", isolated},
		{"time", secondsText(r.Seconds["total"])},
		{"remove", r.ReleaseCommand()},
	})
}

type releaseCommand struct {
	Dir  string `arg:"" help:"Directory that was given to restore --to."`
	Keep bool   `help:"Keep the copy and forget it: it is yours from then on."`
}

func (c *releaseCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	restorer := restore.Restorer{Catalog: store, Drivers: allDrivers(loaded), Progress: a.progress.show}
	released, err := restorer.Release(a.ctx, c.Dir, c.Keep)
	if err != nil {
		return err
	}
	if a.line.JSON {
		return a.printJSON(released)
	}
	if c.Keep {
		a.printf("%s is no longer pgsnap's\n", released.Destination)
		return nil
	}
	a.printf("released %s\n", released.Destination)
	return nil
}

type clonesCommand struct{}

func (c *clonesCommand) Run(a *app) error {
	_, store, err := a.load()
	if err != nil {
		return err
	}
	clones, err := restore.Restorer{Catalog: store}.Clones()
	if err != nil {
		return err
	}
	if a.line.JSON {
		return a.printJSON(clones)
	}
	if len(clones) == 0 {
		a.printf("no restored copies\n")
		return nil
	}
	rows := [][]string{{"DESTINATION", "CLUSTER", "BACKUP", "RESTORED", "STATE"}}
	for _, clone := range clones {
		rows = append(rows, []string{clone.Destination, clone.Cluster, clone.Backup, timeText(clone.CreatedAt), clone.State})
	}
	a.table(rows)
	return nil
}
