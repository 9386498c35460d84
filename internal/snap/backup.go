package snap

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/wal"
)

// Status is how far a backup has come.
type Status string

// The states of a backup in the catalog.
const (
	// Taking: the intent is written down; snapshots may exist.
	Taking Status = "taking"
	// Complete: it can be restored.
	Complete Status = "complete"
	// Failed: it could not be taken, and nothing of it is left but this record.
	Failed Status = "failed"
	// Deleting: its snapshots are being removed.
	Deleting Status = "deleting"
	// Interrupted is never written: it is how a backup reads whose taker or
	// deleter is gone. What is left of it can be deleted.
	Interrupted Status = "interrupted"
	// Lost is never written either: a complete backup, of which a snapshot is
	// not there any more.
	Lost Status = "lost"
)

// Schema is the version of backup.json that this pgsnap writes, and the newest
// that it reads.
const Schema = 1

// Backup is the record of one backup: what is needed to restore it, and how it
// was taken. It is the catalog's backup.json.
type Backup struct {
	Schema  int    `json:"schema"`
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Status  Status `json:"status"`
	// Error says why a backup failed.
	Error string     `json:"error,omitempty"`
	Label string     `json:"label"`
	Mode  pgctl.Mode `json:"mode"`

	StartLSN wal.LSN `json:"start_lsn"`
	StopLSN  wal.LSN `json:"stop_lsn"`
	Timeline uint32  `json:"timeline"`
	// StartedAt is when pgsnap began; StoppedAt when the server left backup
	// mode, which is the earliest moment that can be restored.
	StartedAt time.Time  `json:"started_at"`
	StoppedAt *time.Time `json:"stopped_at"`

	// Atomic: one instant over all volumes.
	Atomic bool `json:"atomic"`
	// Volumes and their snapshots; before the cut, Snapshots is empty but every
	// name in use is already known: SnapshotName, on each of Volumes.
	Volumes      []Volume   `json:"volumes"`
	Snapshots    []Snapshot `json:"snapshots"`
	SnapshotName string     `json:"snapshot_name"`

	Server pgctl.Facts  `json:"server"`
	WAL    wal.Captured `json:"wal"`
	// WALBytes is the size of the captured WAL before compression.
	WALBytes int64 `json:"wal_bytes"`
	// ConfigFiles are the configuration files saved with the backup, by their
	// absolute path on the server.
	ConfigFiles []string `json:"config_files"`
	// Seconds by phase; see Phase.
	Seconds map[Phase]float64 `json:"seconds"`
	// Warnings are what a careful administrator should know of this backup.
	Warnings []string `json:"warnings,omitempty"`
}

// SnapshotOf is the backup's snapshot of one of its volumes.
func (b *Backup) SnapshotOf(volume Volume) (Snapshot, bool) {
	for _, snapshot := range b.Snapshots {
		if snapshot.Driver == volume.Driver && snapshot.VolumeID == volume.ID {
			return snapshot, true
		}
	}
	return Snapshot{}, false
}

// Phase is a step of taking a backup, for progress and for the report.
type Phase string

// The phases in order. BackupMode is from the start's first byte to the stop's
// answer, so it includes PhaseStart, PhaseCut and PhaseStop.
const (
	PhasePlan  Phase = "plan"
	PhaseStart Phase = "start"
	PhaseCut   Phase = "cut"
	PhaseStop  Phase = "stop"
	PhaseWAL   Phase = "wal"
	PhaseCheck Phase = "check"
	BackupMode Phase = "backup_mode"
	Total      Phase = "total"
)

// NewID is the name of a backup taken at a moment: sortable by time, unique, and
// legal in the names of every storage.
func NewID(at time.Time) string {
	var tail [2]byte
	_, _ = rand.Read(tail[:]) // never fails (crypto/rand)
	return at.UTC().Format("20060102-150405-") + hex.EncodeToString(tail[:])
}

// SnapshotNameOf is the name of a backup's snapshots. It is also pgsnap's mark:
// nothing with another name is ever deleted.
func SnapshotNameOf(id string) string { return "pgsnap-" + id }
