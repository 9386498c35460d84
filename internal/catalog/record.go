package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"pgsnap/internal/durable"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

const (
	walName       = "wal"
	newSuffix     = ".new"
	removedSuffix = ".removed"
)

// Record is a backup that this process is taking or deleting; nobody else may
// meanwhile. It is a snap.Record.
type Record struct {
	catalog Catalog
	dir     string
	lock    *os.File
}

// Begin makes the record of a new backup. The caller holds the cluster's lock.
func (c Catalog) Begin(b *snap.Backup) (*Record, error) {
	if !ValidCluster(b.Cluster) || !idPattern.MatchString(b.ID) {
		return nil, fmt.Errorf("backup %q of cluster %q can have no record by that name", b.ID, b.Cluster)
	}
	c.sweep(b.Cluster)
	final := c.dir(b.Cluster, b.ID)
	parent := filepath.Dir(final)
	fresh := filepath.Join(parent, "."+b.ID+newSuffix)
	if err := os.MkdirAll(fresh, directory); err != nil {
		return nil, c.unusable(err)
	}
	record := &Record{catalog: c, dir: fresh}
	err := record.Save(b)
	if err == nil {
		record.lock, err = lockDirectory(fresh, unix.LOCK_EX)
	}
	if err == nil {
		err = os.Rename(fresh, final)
	}
	if err == nil {
		record.dir = final
		err = errors.Join(durable.SyncDirectory(parent), durable.SyncDirectory(c.root))
	}
	if err != nil {
		record.Close()
		return nil, errors.Join(c.unusable(err), os.RemoveAll(record.dir))
	}
	return record, nil
}

// Open takes hold of a backup's record, to delete it.
func (c Catalog) Open(b *snap.Backup) (*Record, error) {
	handle, err := c.lock(b, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return &Record{catalog: c, dir: c.dir(b.Cluster, b.ID), lock: handle}, nil
}

// Close lets go of the backup.
func (r *Record) Close() {
	if r.lock != nil {
		r.lock.Close()
	}
}

// Save replaces backup.json.
func (r *Record) Save(b *snap.Backup) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return r.SaveFile(recordName, append(data, '\n'))
}

// SaveFile writes a file of the backup, whole or not at all.
func (r *Record) SaveFile(name string, data []byte) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q is not a path inside a backup", name)
	}
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), directory); err != nil {
		return r.catalog.unusable(err)
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return r.catalog.unusable(err)
	}
	for dir := filepath.Dir(path); dir != r.dir; {
		dir = filepath.Dir(dir)
		if err := durable.SyncDirectory(dir); err != nil {
			return r.catalog.unusable(err)
		}
	}
	return nil
}

// WALDirectory makes the directory for captured segments.
func (r *Record) WALDirectory() (string, error) {
	path := filepath.Join(r.dir, walName)
	if err := os.Mkdir(path, directory); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", r.catalog.unusable(err)
	}
	return path, durable.SyncDirectory(r.dir)
}

// DiscardFiles removes everything but backup.json.
func (r *Record) DiscardFiles() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != recordName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.dir, entry.Name())))
		}
	}
	return err
}

// Remove takes the backup out of the catalog. Its snapshots are gone by then.
func (r *Record) Remove() error {
	removed := filepath.Join(filepath.Dir(r.dir), "."+filepath.Base(r.dir)+removedSuffix)
	if err := os.Rename(r.dir, removed); err != nil {
		return fault.Wrap(err, fault.Storage, "", "remove the backup's record")
	}
	if err := durable.SyncDirectory(filepath.Dir(r.dir)); err != nil {
		return err
	}
	return os.RemoveAll(removed)
}
