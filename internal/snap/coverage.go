package snap

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgctl"
)

// Coverage is where a cluster lies: every directory of it, and the volumes that
// hold them.
type Coverage struct {
	Paths   []Path
	Volumes []Volume
}

// Cover finds the directories of the cluster and the volumes that hold them. A
// directory that no driver claims, or that the cluster reaches by a link which
// PostgreSQL did not make, is an error that names it.
func Cover(ctx context.Context, facts pgctl.Facts, drivers []Driver) (Coverage, error) {
	paths, err := clusterPaths(facts)
	if err != nil {
		return Coverage{}, err
	}
	volumes, err := resolve(ctx, paths, drivers)
	if err != nil {
		return Coverage{}, err
	}
	// On a standby the volume with pg_control must be cut last
	// (do_pg_backup_stop's comment in xlog.c); it is no loss elsewhere.
	slices.SortStableFunc(volumes, func(a, b Volume) int {
		return boolOrder(a.Holds(DataDirectory)) - boolOrder(b.Holds(DataDirectory))
	})
	return Coverage{Paths: paths, Volumes: volumes}, nil
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func clusterPaths(facts pgctl.Facts) ([]Path, error) {
	data, err := filepath.EvalSymlinks(facts.DataDirectory)
	if err != nil {
		return nil, err
	}
	paths := []Path{{Role: DataDirectory, Path: data}}
	pgWAL, err := filepath.EvalSymlinks(filepath.Join(data, "pg_wal"))
	if err != nil {
		return nil, err
	}
	if !IsBelow(pgWAL, data) {
		paths = append(paths, Path{Role: WALDirectory, Path: pgWAL})
	}
	for _, tablespace := range facts.Tablespaces {
		if tablespace.InPlace() {
			continue // a plain directory inside the data directory
		}
		location, err := filepath.EvalSymlinks(filepath.Join(data, "pg_tblspc", fmt.Sprint(tablespace.OID)))
		if err != nil {
			return nil, fault.Wrap(err, fault.Storage, "", "tablespace %s", tablespace.Name)
		}
		paths = append(paths, Path{Role: Tablespace, Path: location, OID: tablespace.OID})
	}
	if err := checkLinks(data); err != nil {
		return nil, err
	}
	return addMounts(paths)
}

// harmlessDirectories hold nothing that a restored copy needs: a link or a
// temporary file system there is left out of the backup.
var harmlessDirectories = []string{"pg_stat_tmp", "log", "pg_log", "pgsql_tmp"}

// Harmless tells whether a directory of that name holds nothing that a restored
// copy needs: it has its own, empty.
func Harmless(name string) bool { return slices.Contains(harmlessDirectories, name) }

// checkLinks refuses directories that somebody moved out of the data directory
// behind a link: no snapshot of it holds them, and a restored copy would write
// through the link into the live one.
func checkLinks(data string) error {
	for _, dir := range []string{data, filepath.Join(data, "base")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if entry.Type()&fs.ModeSymlink == 0 || path == filepath.Join(data, "pg_wal") || Harmless(entry.Name()) {
				continue
			}
			info, err := os.Stat(path)
			if err != nil || !info.IsDir() {
				continue // configuration files behind links are saved by their own names
			}
			return fault.New(fault.Storage, "move it back, or into a tablespace; pg_wal and tablespaces are the only links that PostgreSQL itself follows",
				"%s is a link to a directory, which a snapshot of the data directory does not hold", path)
		}
	}
	return nil
}

// addMounts adds the file systems that are mounted below the cluster's paths,
// the first of which is the data directory.
func addMounts(paths []Path) ([]Path, error) {
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Clone(paths) {
		for _, mounted := range table.Below(path.Path) {
			if isSnapshot(mounted) {
				continue
			}
			if nested, needed := NestedPath(paths, mounted.Mountpoint); needed {
				paths = append(paths, nested)
			}
		}
	}
	return paths, nil
}

// isSnapshot tells whether a mount is one that ZFS makes where somebody looks at a
// snapshot, below .zfs/snapshot ("Snapshots" in zfsconcepts(7)).
func isSnapshot(mounted *mountinfo.Info) bool {
	return mounted.FSType == "zfs" && strings.Contains(mounted.Source, "@")
}

// NestedPath is what a file system or subvolume at a directory below a cluster's
// paths is to the cluster. It is not needed where it is one of them already, or
// holds nothing that a restored copy needs.
func NestedPath(paths []Path, at string) (nested Path, needed bool) {
	if Harmless(filepath.Base(at)) {
		return Path{}, false
	}
	below := false
	nested = Path{Role: Nested, Path: at}
	for _, path := range paths {
		if path.Path == at {
			return Path{}, false
		}
		below = below || IsBelow(at, path.Path)
		if path.Role == DataDirectory && at == filepath.Join(path.Path, "pg_wal") {
			nested.Role = WALDirectory
		}
	}
	return nested, below
}

// resolve asks the drivers in turn; the first that claims a path has it.
func resolve(ctx context.Context, paths []Path, drivers []Driver) ([]Volume, error) {
	var volumes []Volume
	rest := paths
	for _, driver := range drivers {
		if len(rest) == 0 {
			break
		}
		found, err := driver.Resolve(ctx, rest)
		if err != nil {
			return nil, fault.Wrap(err, fault.Storage, "", "driver %s", driver.Info().Name)
		}
		volumes = append(volumes, found...)
		rest = slices.DeleteFunc(slices.Clone(rest), func(path Path) bool { return claimed(found, path) })
	}
	if len(rest) == 0 {
		return volumes, nil
	}
	var names, missing []string
	for _, driver := range drivers {
		names = append(names, driver.Info().Name)
	}
	for _, path := range rest {
		missing = append(missing, fmt.Sprintf("%s (%s)", path.Path, path.Role))
	}
	return nil, fault.New(fault.Storage, "set driver to one that knows the storage, or to auto",
		"no snapshot can be made of %s with driver %s", strings.Join(missing, ", "), strings.Join(names, ", "))
}

func claimed(volumes []Volume, path Path) bool {
	return slices.ContainsFunc(volumes, func(v Volume) bool { return slices.Contains(v.Paths, path) })
}
