package snap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
)

// check looks at what was taken before it is called a backup.
func (t *taking) check(ctx context.Context) error {
	if err := t.checkTablespaces(ctx); err != nil {
		return err
	}
	if err := t.checkMap(); err != nil {
		return err
	}
	return t.checkControlFile()
}

// checkTablespaces makes sure that none came or went since the plan: WAL replay
// creates such a one at its original path, which a copy must never touch.
func (t *taking) checkTablespaces(ctx context.Context) error {
	now, err := t.Server.ReadTablespaces(ctx)
	if err != nil {
		return err
	}
	changed, err := changedAt(t.backup.Server.DataDirectory)
	if err != nil {
		return err
	}
	if !changed.Equal(t.tablespacesAt) || !slices.Equal(now, t.backup.Server.Tablespaces) {
		return fault.New(fault.Server, "take it again", "a tablespace was created or dropped during the backup")
	}
	return nil
}

// checkMap makes sure that the server's map names the tablespaces that were
// covered, no more and no fewer.
func (t *taking) checkMap() error {
	mapped, err := pgctl.ParseTablespaceMap(t.files.TablespaceMap, t.backup.Server.Major())
	if err != nil {
		return fault.Wrap(err, fault.Server, "", "the server's answer to the stop")
	}
	var inMap, covered []uint32
	for _, tablespace := range mapped {
		inMap = append(inMap, tablespace.OID)
	}
	for _, path := range t.coverage.Paths {
		if path.Role == Tablespace {
			covered = append(covered, path.OID)
		}
	}
	slices.Sort(inMap)
	slices.Sort(covered)
	if !slices.Equal(inMap, covered) {
		return fault.New(fault.Server, "take it again", "the server's tablespace_map names tablespaces %v, but the snapshots cover %v", inMap, covered)
	}
	return nil
}

// checkControlFile makes sure that the snapshot is this cluster's and was not
// cut before the start, wherever it can be read without mounting it.
func (t *taking) checkControlFile() error {
	b := t.backup
	data := t.coverage.Paths[0].Path
	for _, volume := range b.Volumes {
		snapshot, found := b.SnapshotOf(volume)
		if !found || !volume.Holds(DataDirectory) || snapshot.Directory == "" {
			continue
		}
		relative, err := volume.Relative(data)
		if err != nil {
			return err
		}
		dir := filepath.Join(snapshot.Directory, relative)
		control, err := pgctl.ReadControlFile(dir)
		if errors.Is(err, syscall.ELOOP) {
			// ZFS mounts it for whoever looks, but not in every mount namespace.
			b.Warnings = append(b.Warnings, fmt.Sprintf("the snapshot's control file was not checked: %v", err))
			continue
		}
		if err != nil {
			return fault.Wrap(err, fault.Storage, "", "read the snapshot's control file")
		}
		switch {
		case control.SystemIdentifier != b.Server.SystemIdentifier:
			err = fmt.Errorf("it is of another cluster, system identifier %d", control.SystemIdentifier)
		case control.Checkpoint < b.StartLSN:
			err = fmt.Errorf("it was cut before the backup began: its checkpoint is at %s, the start at %s", control.Checkpoint, b.StartLSN)
		case control.Timeline != b.Timeline:
			err = fmt.Errorf("it is on timeline %d, the backup on %d", control.Timeline, b.Timeline)
		}
		if err != nil {
			return fault.Wrap(err, fault.Storage, "", "snapshot %s", snapshot.ID)
		}
	}
	return nil
}

// saveConfiguration keeps the configuration files that no snapshot of the data
// directory holds: those that lie outside of it, as on Debian, or behind a link.
func (t *taking) saveConfiguration() error {
	b, data := t.backup, t.coverage.Paths[0].Path
	for _, path := range b.Server.ConfigFiles {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && IsBelow(real, data) {
			continue
		}
		var content []byte
		if err == nil {
			content, err = b.Server.ReadFileAsOwner(real)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			b.Warnings = append(b.Warnings, fmt.Sprintf("configuration file not saved: %v", err))
			continue
		}
		if err == nil {
			err = t.record.SaveFile(filepath.Join("config", strings.TrimPrefix(filepath.Clean(path), "/")), content)
		}
		if err != nil {
			return fault.Wrap(err, fault.Storage, "", "save configuration file %s", path)
		}
		b.ConfigFiles = append(b.ConfigFiles, path)
	}
	return nil
}
