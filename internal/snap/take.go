package snap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/wal"
)

// undoTimeout bounds the removal of a failed backup's snapshots, which goes on
// after the caller was cancelled.
const undoTimeout = 10 * time.Minute

// Record is where a backup under way is written down. What its methods wrote is
// durable when they return.
type Record interface {
	// Save replaces the record of the backup.
	Save(*Backup) error
	// SaveFile writes a file of the backup, named by a path below its directory.
	SaveFile(name string, data []byte) error
	// WALDirectory is the directory for captured segments, made if need be.
	WALDirectory() (string, error)
	// DiscardFiles removes everything but the record itself.
	DiscardFiles() error
}

// Taker takes backups of one cluster. It expects that nobody else takes one of
// the same cluster meanwhile.
type Taker struct {
	Cluster string
	Server  *pgctl.Server
	// Drivers are asked in this order; the first that claims a path has it.
	Drivers []Driver
	// Begin makes the record of a new backup.
	Begin func(*Backup) (Record, error)
	// Progress is told of each phase as it begins.
	Progress func(Phase)
}

// TakeOptions are how one backup is taken.
type TakeOptions struct {
	// Label is for people; empty takes one from the backup's id.
	Label string
	Mode  pgctl.Mode
	// Fast asks for an immediate checkpoint.
	Fast bool
}

// taking is one backup on its way.
type taking struct {
	Taker
	backup   *Backup
	record   Record
	coverage Coverage
	files    pgctl.BackupFiles
	// tablespacesAt is when the directory of tablespace links last changed.
	tablespacesAt time.Time
	began         time.Time
}

// Take takes a backup, in the order that ARCHITECTURE.md numbers. On any error
// the server is out of backup mode, no snapshot is left, and the record says why;
// what could not be undone stays in the record, to be deleted later.
func (t Taker) Take(ctx context.Context, options TakeOptions) (*Backup, error) {
	now := time.Now()
	take := &taking{Taker: t, began: now}
	id := NewID(now)
	label := options.Label
	if label == "" {
		label = pgctl.DefaultLabel(id, now)
	}
	take.backup = &Backup{
		Schema: Schema, ID: id, Cluster: t.Cluster, Status: Taking, Label: label,
		StartedAt: now, SnapshotName: SnapshotNameOf(id), Seconds: map[Phase]float64{},
		Snapshots: []Snapshot{}, ConfigFiles: []string{}, // [] rather than null in JSON
	}
	if err := take.phase(PhasePlan, func() error { return take.plan(ctx, options) }); err != nil {
		return nil, err
	}
	err := take.window(ctx, options)
	if err == nil {
		err = take.complete(ctx)
	}
	if err != nil {
		return take.backup, errors.Join(err, take.undo(ctx, err))
	}
	return take.backup, nil
}

func (t *taking) phase(phase Phase, do func() error) error {
	t.Progress(phase)
	start := time.Now()
	err := do()
	t.backup.Seconds[phase] = time.Since(start).Seconds()
	return err
}

// plan finds the volumes and writes the intent down. Nothing is left behind
// where it fails.
func (t *taking) plan(ctx context.Context, options TakeOptions) (err error) {
	b, facts := t.backup, &t.Server.Facts
	if err := pgctl.CheckLabel(b.Label); err != nil {
		return fault.Wrap(err, fault.Usage, "give one short line of text with --label", "backup label")
	}
	if b.Mode, err = options.Mode.Resolve(*facts); err != nil {
		return err
	}
	if facts.InRecovery {
		return fault.New(fault.Server, "let dsn name the primary", "the server is a standby, from which this version of pgsnap takes no backup")
	}
	// In this order: a tablespace that comes or goes after the look at the
	// directory is noticed by the check at the end.
	if t.tablespacesAt, err = changedAt(facts.DataDirectory); err != nil {
		return err
	}
	if facts.Tablespaces, err = t.Server.ReadTablespaces(ctx); err != nil {
		return err
	}
	if t.coverage, err = Cover(ctx, *facts, t.Drivers); err != nil {
		return err
	}
	b.Server, b.Volumes = *facts, t.coverage.Volumes
	if !IsBelow(facts.Settings["config_file"], facts.DataDirectory) { // otherwise the snapshots hold them
		b.Warnings = t.Server.Warnings
	}
	t.record, err = t.Begin(b)
	return err
}

func changedAt(dataDirectory string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(dataDirectory, "pg_tblspc"))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// window is the part in backup mode: start, cut, stop, and the files saved. The
// session stays open after it, and with it the slot that keeps the WAL.
func (t *taking) window(ctx context.Context, options TakeOptions) error {
	b := t.backup
	entered := time.Now()
	var session *pgctl.Backup
	err := t.phase(PhaseStart, func() (err error) {
		session, err = t.Server.StartBackup(ctx, pgctl.BackupOptions{
			Label: b.Label, Mode: b.Mode, Fast: options.Fast,
			Slot: "pgsnap_" + strings.ReplaceAll(b.ID, "-", "_"),
		})
		return err
	})
	if err != nil {
		return err
	}
	if session.Warning != "" {
		b.Warnings = append(b.Warnings, session.Warning)
	}
	b.StartLSN = session.Start
	if session.Mode == pgctl.Exclusive {
		// The server hands these out only now, in its data directory.
		err = t.saveFiles(session.Files)
	}
	if err == nil {
		err = t.phase(PhaseCut, func() error { return t.cut(ctx, session) })
	}
	if err != nil {
		return errors.Join(err, session.Abort())
	}
	err = t.phase(PhaseStop, func() (err error) {
		b.StopLSN, t.files, err = session.Stop(ctx)
		return err
	})
	b.Seconds[BackupMode] = time.Since(entered).Seconds()
	if err != nil {
		return errors.Join(err, session.Abort())
	}
	stopped := time.Now()
	b.StoppedAt = &stopped
	return t.saveFiles(t.files)
}

func (t *taking) saveFiles(files pgctl.BackupFiles) error {
	err := t.record.SaveFile("backup_label", files.Label)
	if err == nil && len(files.TablespaceMap) > 0 {
		err = t.record.SaveFile("tablespace_map", files.TablespaceMap)
	}
	return fault.Wrap(err, fault.Storage, "", "save the backup's label")
}

// cut lets each driver cut its volumes, the one with the data directory last.
func (t *taking) cut(ctx context.Context, session *pgctl.Backup) error {
	b := t.backup
	ctx, end := session.Watch(ctx)
	defer end()
	b.Atomic = true
	for _, part := range t.parts() {
		set, err := part.driver.Snapshot(ctx, b.SnapshotName, part.volumes, t.metadata())
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if err != nil {
			return fault.Wrap(err, fault.Storage, "", "driver %s: snapshot %s", part.driver.Info().Name, b.SnapshotName)
		}
		b.Snapshots = append(b.Snapshots, set.Snapshots...)
		b.Atomic = b.Atomic && set.Atomic && len(set.Snapshots) == len(b.Volumes)
	}
	return nil
}

// part is the volumes of one driver.
type part struct {
	driver  Driver
	volumes []Volume
}

// parts groups the volumes by driver, keeping the order in which they are cut.
func (t *taking) parts() []part { return partsOf(t.backup.Volumes, t.Drivers) }

func partsOf(volumes []Volume, drivers []Driver) []part {
	var parts []part
	for _, driver := range drivers {
		name := driver.Info().Name
		mine := slices.DeleteFunc(slices.Clone(volumes), func(v Volume) bool { return v.Driver != name })
		if len(mine) > 0 {
			parts = append(parts, part{driver, mine})
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return boolOrder(a.hasData()) - boolOrder(b.hasData())
	})
	return parts
}

func (p part) hasData() bool {
	return slices.ContainsFunc(p.volumes, func(v Volume) bool { return v.Holds(DataDirectory) })
}

// metadata is what a snapshot says of its backup: at the cut what is known by
// then, at the commit all of it.
func (t *taking) metadata() Metadata {
	b := t.backup
	metadata := Metadata{
		"id": b.ID, "cluster": b.Cluster, "start-lsn": b.StartLSN.String(),
		"system-identifier": fmt.Sprint(b.Server.SystemIdentifier),
	}
	if b.StoppedAt != nil {
		metadata["stop-lsn"] = b.StopLSN.String()
		metadata["label"] = string(t.files.Label)
		metadata["tablespace-map"] = string(t.files.TablespaceMap)
	}
	return metadata
}

// complete is everything after backup mode: the WAL, the checks, and the last
// word of the record.
func (t *taking) complete(ctx context.Context) error {
	b := t.backup
	if err := t.phase(PhaseWAL, func() error { return t.captureWAL(ctx) }); err != nil {
		return err
	}
	err := t.phase(PhaseCheck, func() error {
		for _, part := range t.parts() {
			mine := slices.DeleteFunc(slices.Clone(b.Snapshots), func(s Snapshot) bool { return s.Driver != part.driver.Info().Name })
			if err := part.driver.Commit(ctx, part.volumes, Set{Snapshots: mine, Atomic: b.Atomic}, t.metadata()); err != nil {
				return fault.Wrap(err, fault.Storage, "", "driver %s: make snapshot %s durable", part.driver.Info().Name, b.SnapshotName)
			}
		}
		if err := t.saveConfiguration(); err != nil {
			return err
		}
		return t.check(ctx)
	})
	if err != nil {
		return err
	}
	b.Seconds[Total] = time.Since(t.began).Seconds()
	b.Status = Complete
	if err := t.record.Save(b); err != nil {
		b.Status = Taking
		return fault.Wrap(err, fault.Storage, "", "write the backup's record")
	}
	return nil
}

func (t *taking) captureWAL(ctx context.Context) error {
	b := t.backup
	label, err := pgctl.ParseBackupLabel(t.files.Label)
	if err == nil {
		err = label.Matches(b.StartLSN)
	}
	if err != nil {
		return fault.Wrap(err, fault.Server, "", "the server's answer to the stop")
	}
	b.Timeline = label.Timeline
	dir, err := t.record.WALDirectory()
	if err != nil {
		return err
	}
	needed := wal.Range{Timeline: b.Timeline, Start: b.StartLSN, Stop: b.StopLSN, SegmentSize: b.Server.WALSegmentSize}
	b.WAL, err = wal.Capture(ctx, filepath.Join(b.Server.DataDirectory, "pg_wal"), dir, needed, b.Server.SystemIdentifier)
	b.WALBytes = b.WAL.Bytes
	return fault.Wrap(err, fault.Storage, "", "copy the backup's WAL to %s", dir)
}

// undo removes what the failed backup made, and says in the record why it
// failed.
func (t *taking) undo(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	b := t.backup
	err := DeleteSnapshots(ctx, b, t.Drivers)
	if err == nil {
		err = t.record.DiscardFiles()
	}
	b.Error = why.Error()
	b.Seconds[Total] = time.Since(t.began).Seconds()
	if err == nil {
		b.Status, b.Snapshots, b.WAL, b.WALBytes = Failed, []Snapshot{}, wal.Captured{}, 0
	}
	return errors.Join(err, t.record.Save(b))
}
