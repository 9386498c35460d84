// Package catalog is the record of all backups: a directory a cluster and a
// backup, readable without pgsnap.
//
//	CATALOG/.CLUSTER.lock            held while a backup of the cluster is taken
//	CATALOG/CLUSTER/ID/backup.json   the record (snap.Backup)
//	CATALOG/CLUSTER/ID/backup_label, tablespace_map, wal/, config/
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

const (
	recordName = "backup.json"
	directory  = 0o700 // of everything in the catalog: labels, WAL and settings are secrets
)

var (
	idPattern      = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$`)
	clusterPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)
)

// ValidCluster tells whether a text may be a cluster's name: it is a directory's
// name here and a part of names and tags on the storage.
func ValidCluster(name string) bool { return clusterPattern.MatchString(name) }

// Catalog is a directory of backups.
type Catalog struct{ root string }

// At is the catalog in a directory, which is made when a backup is first taken.
func At(root string) Catalog { return Catalog{root: filepath.Clean(root)} }

// Root is the catalog's directory.
func (c Catalog) Root() string { return c.root }

// LockCluster makes sure that one process at a time takes backups of a cluster.
// The lock is the kernel's and ends with the process.
func (c Catalog) LockCluster(cluster string) (unlock func(), err error) {
	if !ValidCluster(cluster) {
		return nil, fmt.Errorf("%q is no name for a cluster", cluster)
	}
	if err := os.MkdirAll(c.root, directory); err != nil {
		return nil, c.unusable(err)
	}
	path := filepath.Join(c.root, "."+cluster+".lock")
	handle, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, c.unusable(err)
	}
	if err := unix.Flock(int(handle.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		handle.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Busy, "wait until it has finished; pgsnap list shows it", "another backup of cluster %s is being taken", cluster)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { handle.Close() }, nil
}

func (c Catalog) unusable(err error) error {
	hint := "set catalog in the configuration, or PGSNAP_CATALOG, to a directory that pgsnap may write"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "run pgsnap as root, or set catalog (PGSNAP_CATALOG) to a directory that this user may write"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "free space on the catalog's file system, for example with pgsnap delete"
	}
	return fault.Wrap(err, fault.Storage, hint, "catalog %s", c.root)
}

// Problem is a record that can't be read.
type Problem struct {
	Path string
	Err  error
}

// List returns all backups, of one cluster or, for "", of all, oldest first, and
// the records that it could not read.
func (c Catalog) List(cluster string) ([]*snap.Backup, []Problem, error) {
	clusters := []string{cluster}
	if cluster == "" {
		var err error
		if clusters, err = c.directories(c.root, clusterPattern); err != nil {
			return nil, nil, err
		}
	}
	var backups []*snap.Backup
	var problems []Problem
	for _, cluster := range clusters {
		if !ValidCluster(cluster) {
			continue // it would lead out of the catalog
		}
		ids, err := c.directories(filepath.Join(c.root, cluster), idPattern)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range ids {
			backup, err := c.read(cluster, id)
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted meanwhile
			}
			if err != nil {
				problems = append(problems, Problem{c.dir(cluster, id), err})
				continue
			}
			backups = append(backups, backup)
		}
	}
	slices.SortStableFunc(backups, func(a, b *snap.Backup) int { return a.StartedAt.Compare(b.StartedAt) })
	return backups, problems, nil
}

func (c Catalog) directories(parent string, pattern *regexp.Regexp) ([]string, error) {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, c.unusable(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && pattern.MatchString(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Find returns a backup by its id, or by "latest": the newest complete one. An
// empty cluster looks in all. What is complete, mark has the last word on.
func (c Catalog) Find(cluster, id string, mark func([]*snap.Backup)) (*snap.Backup, error) {
	backups, problems, err := c.List(cluster)
	if err != nil {
		return nil, err
	}
	slices.Reverse(backups)
	if id == "latest" {
		if cluster == "" && slices.ContainsFunc(backups, func(b *snap.Backup) bool { return b.Cluster != backups[0].Cluster }) {
			return nil, fault.New(fault.Usage, "name the cluster with --cluster", "there are backups of several clusters in %s", c.root)
		}
		mark(backups)
	}
	for _, backup := range backups {
		if id == "latest" && backup.Status == snap.Complete {
			return backup, nil
		}
		if backup.ID == id {
			mark([]*snap.Backup{backup})
			return backup, nil
		}
	}
	for _, problem := range problems {
		if filepath.Base(problem.Path) == id {
			return nil, fault.Wrap(problem.Err, fault.Storage, "", "backup %s", id)
		}
	}
	of := ""
	if cluster != "" {
		of = " of cluster " + cluster
	}
	if id == "latest" {
		return nil, fault.New(fault.NotFound, "take one: pgsnap take", "there is no complete backup%s in %s", of, c.root)
	}
	return nil, fault.New(fault.NotFound, "pgsnap list shows what there is", "there is no backup %q%s in %s", id, of, c.root)
}

func (c Catalog) read(cluster, id string) (*snap.Backup, error) {
	backup, err := c.readRecord(cluster, id)
	if err != nil || !underWay(backup) || c.inUse(cluster, id) {
		return backup, err
	}
	// Whoever held it may have finished between the two looks.
	backup, err = c.readRecord(cluster, id)
	if err == nil && underWay(backup) {
		backup.Status = snap.Interrupted
	}
	return backup, err
}

func underWay(b *snap.Backup) bool { return b.Status == snap.Taking || b.Status == snap.Deleting }

func (c Catalog) readRecord(cluster, id string) (*snap.Backup, error) {
	path := filepath.Join(c.dir(cluster, id), recordName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	backup, err := parseRecord(data, cluster, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return backup, nil
}

// parseRecord reads the record that belongs to a backup of a cluster.
func parseRecord(data []byte, cluster, id string) (*snap.Backup, error) {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if head.Schema < 1 || head.Schema > snap.Schema {
		return nil, fmt.Errorf("it has schema %d, and this pgsnap reads up to %d", head.Schema, snap.Schema)
	}
	backup := new(snap.Backup)
	if err := json.Unmarshal(data, backup); err != nil {
		return nil, err
	}
	if backup.ID != id || backup.Cluster != cluster || backup.SnapshotName != snap.SnapshotNameOf(id) {
		return nil, fmt.Errorf("it is the record of backup %s of cluster %s, out of its place", backup.ID, backup.Cluster)
	}
	return backup, nil
}

func (c Catalog) dir(cluster, id string) string { return filepath.Join(c.root, cluster, id) }

// File reads a file of a backup, named by a path below the backup's directory.
// One that is not there is fs.ErrNotExist.
func (c Catalog) File(b *snap.Backup, name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is not a path inside a backup", name)
	}
	return os.ReadFile(filepath.Join(c.dir(b.Cluster, b.ID), name))
}

// WALDirectory is where a backup's captured WAL is.
func (c Catalog) WALDirectory(b *snap.Backup) string {
	return filepath.Join(c.dir(b.Cluster, b.ID), walName)
}

// inUse tells whether a process works on the backup.
func (c Catalog) inUse(cluster, id string) bool {
	handle, err := lockDirectory(c.dir(cluster, id), unix.LOCK_SH)
	if err == nil {
		handle.Close()
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

// lockDirectory locks a backup for as long as the handle is open.
func lockDirectory(dir string, how int) (*os.File, error) {
	handle, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(handle.Fd()), how|unix.LOCK_NB); err != nil {
		handle.Close()
		return nil, err
	}
	return handle, nil
}

// LockShared keeps a backup from being deleted while it is restored.
func (c Catalog) LockShared(b *snap.Backup) (unlock func(), err error) {
	handle, err := c.lock(b, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return func() { handle.Close() }, nil
}

func (c Catalog) lock(b *snap.Backup, how int) (*os.File, error) {
	handle, err := lockDirectory(c.dir(b.Cluster, b.ID), how)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fault.New(fault.Busy, "wait until the other pgsnap has finished", "backup %s is in use: it is being taken, restored or deleted", b.ID)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "", "backup %s was deleted meanwhile", b.ID)
	}
	return handle, err
}

// sweep removes what an interrupted Begin or Remove left: directories that are
// no backup yet, or no longer.
func (c Catalog) sweep(cluster string) {
	entries, err := os.ReadDir(filepath.Join(c.root, cluster))
	if err != nil {
		return
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") && (strings.HasSuffix(name, newSuffix) || strings.HasSuffix(name, removedSuffix)) {
			_ = os.RemoveAll(filepath.Join(c.root, cluster, name)) // tried again next time
		}
	}
}
