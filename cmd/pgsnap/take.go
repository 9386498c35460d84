package main

import (
	"fmt"
	"strings"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
)

type takeCommand struct {
	Label string     `help:"Backup label, one line of at most 1000 bytes." placeholder:"TEXT"`
	Mode  pgctl.Mode `help:"Backup mode: auto, non-exclusive or exclusive (default: the configuration's)." placeholder:"MODE"`
	Fast  bool       `help:"Ask for an immediate checkpoint instead of a spread one (default: yes)." default:"true" negatable:""`
}

var phaseText = map[snap.Phase]string{
	snap.PhasePlan: "planning", snap.PhaseStart: "starting backup mode (checkpoint)", snap.PhaseCut: "cutting snapshots",
	snap.PhaseStop: "stopping backup mode", snap.PhaseWAL: "copying WAL", snap.PhaseCheck: "checking",
}

func (c *takeCommand) Run(a *app) error {
	loaded, store, err := a.load()
	if err != nil {
		return err
	}
	name, cluster, err := loaded.Cluster(a.line.Cluster)
	if err != nil {
		return err
	}
	drivers, err := takingDrivers(loaded, cluster.Driver)
	if err != nil {
		return err
	}
	mode := cluster.Mode
	if c.Mode != "" {
		mode = c.Mode
	}
	unlock, err := store.LockCluster(name)
	if err != nil {
		return err
	}
	defer unlock()
	server, err := pgctl.Connect(a.ctx, cluster.DSN)
	if err != nil {
		return err
	}
	defer server.Close()
	taker := snap.Taker{
		Cluster: name, Server: server, Drivers: drivers,
		Progress: func(phase snap.Phase) { a.progress.show(phaseText[phase]) },
		Begin: func(b *snap.Backup) (snap.Record, error) {
			record, err := store.Begin(b)
			if err != nil {
				return nil, err
			}
			return record, nil
		},
	}
	backup, err := taker.Take(a.ctx, snap.TakeOptions{Label: c.Label, Mode: mode, Fast: c.Fast})
	if err != nil {
		return err
	}
	a.progress.clear()
	if a.line.JSON {
		return a.printJSON(backup)
	}
	a.printBackup(backup, false)
	return nil
}

// printBackup is the report of take, and with the snapshots that of show.
func (a *app) printBackup(b *snap.Backup, withSnapshots bool) {
	a.printf("backup %s of cluster %s: %s\n", b.ID, b.Cluster, b.Status)
	var volumes, snapshots, seconds []string
	for _, volume := range b.Volumes {
		volumes = append(volumes, volume.Driver+"  "+volume.ID)
		if snapshot, found := b.SnapshotOf(volume); found && withSnapshots {
			snapshots = append(snapshots, snapshot.ID)
		}
	}
	for _, phase := range []snap.Phase{snap.PhasePlan, snap.PhaseStart, snap.PhaseCut, snap.PhaseStop, snap.PhaseWAL, snap.PhaseCheck} {
		if spent, known := b.Seconds[phase]; known {
			seconds = append(seconds, fmt.Sprintf("%s %.2f", phase, spent))
		}
	}
	var tablespaces []string
	for _, tablespace := range b.Server.Tablespaces {
		tablespaces = append(tablespaces, fmt.Sprintf("%d  %s  %s", tablespace.OID, tablespace.Name, tablespace.Location))
	}
	captured, instant, stopped := "", "", ""
	if len(b.WAL.Files) > 0 {
		captured = fmt.Sprintf("%s to %s on timeline %d; %s captured, %s stored", b.StartLSN, b.StopLSN, b.Timeline, bytesText(b.WAL.Bytes), bytesText(b.WAL.StoredBytes))
	}
	if b.Status == snap.Complete {
		instant = "not at one instant, whole by its WAL"
		if b.Atomic {
			instant = "at one instant"
		}
	}
	if b.StoppedAt != nil {
		stopped = timeText(*b.StoppedAt)
	}
	mode := ""
	if spent, known := b.Seconds[snap.BackupMode]; known {
		mode = fmt.Sprintf(", %s of it in backup mode", secondsText(spent))
	}
	spent := ""
	if total, known := b.Seconds[snap.Total]; known {
		spent = secondsText(total) + mode + " (" + strings.Join(seconds, ", ") + ")"
	}
	a.facts([][2]string{
		{"error", b.Error},
		{"server", fmt.Sprintf("PostgreSQL %s, %s", b.Server.VersionText, b.Server.DataDirectory)},
		{"label", b.Label},
		{"mode", string(b.Mode)},
		{"started", timeText(b.StartedAt)},
		{"stopped", stopped},
		{"WAL", captured},
		{"volumes", strings.Join(volumes, "\n")},
		{"snapshots", strings.Join(snapshots, "\n")},
		{"cut", instant},
		{"tablespaces", strings.Join(tablespaces, "\n")},
		{"time", spent},
		{"warning", strings.Join(b.Warnings, "\n")},
	})
}
