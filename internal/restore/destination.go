package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"pgsnap/internal/beside"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// resolveNew makes a path absolute and follows the links in as much of it as
// exists.
func resolveNew(path string) (string, error) {
	if path == "" {
		return "", fault.New(fault.Usage, "name one with --to", "there is no destination")
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if errors.Is(err, fs.ErrNotExist) && absolute != "/" {
		if info, lstatErr := os.Lstat(absolute); lstatErr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return "", fault.New(fault.Usage, "name the directory itself", "%s is a link to nothing", absolute)
		}
		parent, err := resolveNew(filepath.Dir(absolute))
		return filepath.Join(parent, filepath.Base(absolute)), err
	}
	return resolved, err
}

// checkApart makes sure that a place for a part of the copy lies neither in the
// live cluster nor in what pgsnap keeps.
func (r *restoring) checkApart(place string) error {
	if root, err := resolveNew(r.Catalog.Root()); err == nil && snap.IsBelow(place, root) {
		return fault.New(fault.Usage, "choose another directory", "%s lies in the catalog %s", place, root)
	}
	for part := place; part != "/"; part = filepath.Dir(part) {
		if filepath.Base(part) == beside.Folder {
			return fault.New(fault.Usage, "choose another directory", "%s lies among snapshots, in %s", place, part)
		}
		if _, err := os.Lstat(filepath.Join(part, "PG_VERSION")); err == nil {
			return fault.New(fault.Usage, "choose a directory outside of it", "%s lies in a data directory, %s", place, part)
		}
	}
	for _, volume := range r.backup.Volumes {
		for _, path := range volume.Paths {
			live, err := resolveNew(path.Path)
			if err == nil && isLive(live) && (snap.IsBelow(place, live) || snap.IsBelow(live, place)) {
				return fault.New(fault.Usage, "choose a directory outside of the cluster", "%s is part of the live cluster: its %s is %s", place, roleNames[path.Role], live)
			}
		}
	}
	return nil
}

var roleNames = map[snap.Role]string{
	snap.DataDirectory: "data directory", snap.WALDirectory: "WAL directory",
	snap.Tablespace: "tablespace", snap.Nested: "file system",
}

// isLive tells whether a directory of the original still holds something; one
// that was lost may be restored to.
func isLive(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0
}

// checkEmpty makes sure that a directory is empty or does not exist.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Wrap(err, fault.Usage, "name a directory that is empty or does not exist", "destination")
	case len(entries) > 0:
		return fault.New(fault.Usage, "name a directory that is empty or does not exist", "%s is not empty: it holds %s", dir, entries[0].Name())
	}
	return nil
}

// checkReachable makes sure that the server's user can enter the destination.
func checkReachable(place string, uid, gid int) error {
	for dir := filepath.Dir(place); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // to be made, for everybody to enter
		}
		if err != nil {
			return err
		}
		if !mayEnter(info, uid, gid) {
			return fault.New(fault.Usage, "choose a place below a directory that this user can enter, such as /var/lib/postgresql",
				"the server's user (uid %d) cannot enter %s, where %s is to be", uid, dir, place)
		}
		if dir == "/" {
			return nil
		}
	}
}

func mayEnter(dir fs.FileInfo, uid, gid int) bool {
	stat := dir.Sys().(*syscall.Stat_t)
	mode := dir.Mode().Perm()
	switch {
	case int(stat.Uid) == uid:
		return mode&0o100 != 0
	case int(stat.Gid) == gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// makeDirectory makes a directory and those above it. The ones above may be
// entered by all; the last one is the caller's alone until it is handed over.
func makeDirectory(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// parseMapping reads OLD=NEW, in which a = of a path is written as \=, as
// pg_basebackup has it.
func parseMapping(text string) (from, to string, err error) {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '=':
			part.WriteByte('=')
			i++
		case text[i] == '=':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(text[i])
		}
	}
	parts = append(parts, part.String())
	if len(parts) != 2 || !filepath.IsAbs(parts[0]) || !filepath.IsAbs(parts[1]) {
		return "", "", fmt.Errorf("%q is not OLD=NEW with two absolute paths (write = in a path as \\=)", text)
	}
	return filepath.Clean(parts[0]), filepath.Clean(parts[1]), nil
}

// ParseMappings reads the values of --tablespace.
func ParseMappings(texts []string) (map[string]string, error) {
	mappings := map[string]string{}
	for _, text := range texts {
		from, to, err := parseMapping(text)
		if err != nil {
			return nil, fault.Wrap(err, fault.Usage, "for example --tablespace /srv/fast=/srv/copy/fast", "--tablespace")
		}
		if _, twice := mappings[from]; twice {
			return nil, fault.New(fault.Usage, "give each tablespace one new place", "--tablespace names %s twice", from)
		}
		mappings[from] = to
	}
	return mappings, nil
}
