package restore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
)

// Release removes the copy in a destination: mounts, clones, and the directory
// itself. Its server must have been stopped. To keep is to forget it instead: it
// is its user's from then on.
func (r Restorer) Release(ctx context.Context, destination string, keep bool) (*catalog.Copy, error) {
	resolved, err := resolveNew(destination)
	if err != nil {
		return nil, err
	}
	record, err := r.Catalog.FindCopy(resolved)
	if err != nil {
		return nil, err
	}
	if keep {
		return record, r.Catalog.RemoveCopy(record)
	}
	data := filepath.Join(record.Destination, dataName)
	if _, err := os.Stat(data); record.Complete && errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Storage, "if it was moved to be used on, forget the copy: pgsnap release --keep "+record.Destination,
			"%s is not there, so what else was made for this copy may be in use elsewhere", data)
	}
	running, err := pgctl.Running(data)
	if err != nil {
		return nil, err
	}
	if running {
		return nil, fault.New(fault.Busy, "stop it first: "+StopCommand(record), "a server is running on %s", data)
	}
	return record, r.remove(ctx, record)
}

// Clone is a restored copy as the clones command reports it.
type Clone struct {
	Destination string    `json:"destination"`
	Cluster     string    `json:"cluster"`
	Backup      string    `json:"backup"`
	CreatedAt   time.Time `json:"created_at"`
	// State is running, stopped, incomplete (a restore that did not end) or gone.
	State string `json:"state"`
}

// Clones are all restored copies that were not released.
func (r Restorer) Clones() ([]Clone, error) {
	records, err := r.Catalog.Copies()
	if err != nil {
		return nil, err
	}
	clones := []Clone{}
	for _, record := range records {
		clones = append(clones, Clone{
			Destination: record.Destination, Cluster: record.Cluster, Backup: record.Backup,
			CreatedAt: record.CreatedAt, State: state(record),
		})
	}
	return clones, nil
}

func state(record *catalog.Copy) string {
	data := filepath.Join(record.Destination, dataName)
	running, err := pgctl.Running(data)
	switch {
	case err == nil && running:
		return "running"
	case !record.Complete:
		return "incomplete"
	case !exists(data):
		return "gone"
	}
	return "stopped"
}
