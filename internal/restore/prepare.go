package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
	"pgsnap/internal/wal"
)

const (
	labelName = "backup_label"
	mapName   = "tablespace_map"
)

// dataDirectory is the copy's data directory while it is prepared. Everything
// goes through root, which follows no link out of it: the content is whatever
// the database's user put there.
type dataDirectory struct {
	root     *os.Root
	uid, gid int
}

// prepare makes the clone a data directory that a server starts from. All of it
// is done before the first start, which changes the copy for good.
func (r *restoring) prepare(ctx context.Context) error {
	root, err := os.OpenRoot(r.layout.data)
	if err != nil {
		return err
	}
	defer root.Close()
	d := dataDirectory{root: root}
	if d.uid, d.gid, err = pgctl.Owner(r.layout.data); err != nil {
		return err
	}
	control, err := pgctl.ReadControlFile(r.layout.data)
	if err != nil {
		return fault.Wrap(err, fault.Storage, "", "the clone's control file")
	}
	if control.SystemIdentifier != r.backup.Server.SystemIdentifier {
		return fault.New(fault.Storage, "", "the clone is of another cluster: system identifier %d instead of %d", control.SystemIdentifier, r.backup.Server.SystemIdentifier)
	}
	for _, do := range []func() error{
		d.clean,
		func() error { return r.putWAL(ctx, d) },
		func() error { return r.putLabel(d) },
		func() error { return r.putTablespaces(d) },
		func() error { return r.putConfiguration(d) },
		func() error { return r.handOver(d) },
	} {
		if err := do(); err != nil {
			return fault.Wrap(err, fault.Storage, "", "prepare %s", r.layout.data)
		}
	}
	return nil
}

// clean removes what only the server that wrote it may have, and links by which
// the copy would reach into the live cluster.
func (d dataDirectory) clean() error {
	entries, err := d.list(".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case pgctl.TransientFile(name):
			err = d.root.RemoveAll(name)
		case entry.Type()&fs.ModeSymlink != 0 && d.leadsToDirectory(name):
			// pg_wal, log and the like: the copy has its own
			err = d.remake(name)
		case entry.IsDir() && (pgctl.TransientContent(name) || snap.Harmless(name)):
			err = d.remake(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d dataDirectory) list(name string) ([]fs.DirEntry, error) {
	return fs.ReadDir(d.root.FS(), name)
}

// leadsToDirectory tells whether a link is not known to lead to a file: one that
// leads nowhere on this host counts as one to a directory.
func (d dataDirectory) leadsToDirectory(name string) bool {
	info, err := os.Stat(filepath.Join(d.root.Name(), name))
	return err != nil && name == "pg_wal" || err == nil && info.IsDir()
}

// remake makes a directory anew, and empty. What a snapshot holds in a nested
// subvolume's stead looks like an empty directory, but nothing can be made in it.
func (d dataDirectory) remake(name string) error {
	if err := d.root.RemoveAll(name); err != nil {
		return err
	}
	return d.makeDirectory(name)
}

func (d dataDirectory) makeDirectory(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.own(name)
}

// own gives what root made to the owner of the data directory.
func (d dataDirectory) own(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return d.root.Lchown(name, d.uid, d.gid)
}

// write replaces a file, or whatever else is there under its name.
func (d dataDirectory) write(name string, data []byte) error {
	if err := d.root.RemoveAll(name); err != nil {
		return err
	}
	if err := d.root.WriteFile(name, data, 0o600); err != nil {
		return err
	}
	return d.own(name)
}

func (r *restoring) putWAL(ctx context.Context, d dataDirectory) error {
	for _, name := range []string{"pg_wal", "pg_wal/archive_status"} {
		if err := d.makeDirectory(name); err != nil {
			return err
		}
	}
	from, to := r.Catalog.WALDirectory(r.backup), filepath.Join(r.layout.data, "pg_wal")
	if err := wal.Unpack(ctx, from, to, r.backup.WAL, r.backup.Server.SystemIdentifier); err != nil {
		return err
	}
	for _, dir := range []string{"pg_wal", "pg_wal/archive_status"} {
		entries, err := d.list(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := d.own(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *restoring) putLabel(d dataDirectory) error {
	data, err := r.Catalog.File(r.backup, labelName)
	if err != nil {
		return err
	}
	label, err := pgctl.ParseBackupLabel(data)
	if err == nil {
		err = label.Matches(r.backup.StartLSN)
	}
	if err != nil {
		return err
	}
	return d.write(labelName, data)
}

// putTablespaces writes a map with the tablespaces' new places, and makes the
// links in pg_tblspc lead there too: untouched, both lead to the live cluster.
func (r *restoring) putTablespaces(d dataDirectory) error {
	var mapped []pgctl.MappedTablespace
	for _, tablespace := range r.result.Tablespaces {
		mapped = append(mapped, pgctl.MappedTablespace{OID: tablespace.OID, Path: tablespace.New})
	}
	data, err := pgctl.FormatTablespaceMap(mapped, r.backup.Server.Major())
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if err := d.write(mapName, data); err != nil {
			return err
		}
	}
	entries, err := d.list("pg_tblspc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Type()&fs.ModeSymlink == 0 {
			continue // an in-place tablespace
		}
		known := slices.ContainsFunc(mapped, func(t pgctl.MappedTablespace) bool {
			return entry.Name() == strconv.FormatUint(uint64(t.OID), 10)
		})
		if !known {
			return fmt.Errorf("pg_tblspc/%s is a tablespace that the backup does not hold", entry.Name())
		}
		if err := d.root.Remove("pg_tblspc/" + entry.Name()); err != nil {
			return err
		}
	}
	for _, tablespace := range mapped {
		link := fmt.Sprintf("pg_tblspc/%d", tablespace.OID)
		if err := d.root.Symlink(tablespace.Path, link); err != nil {
			return err
		}
		if err := d.own(link); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives the destination to the owner of the data directory, who could
// not enter it until now.
func (r *restoring) handOver(d dataDirectory) error {
	socket := r.result.SocketDirectory
	if snap.IsBelow(socket, r.copy.Destination) {
		if err := os.Mkdir(socket, 0o700); err != nil {
			return err
		}
		if err := chown(socket, d); err != nil {
			return err
		}
	}
	return chown(r.copy.Destination, d)
}

func chown(path string, d dataDirectory) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, d.uid, d.gid)
}
