package restore

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// What a destination holds.
const (
	dataName        = "data"        // the data directory, or a link to it
	tablespacesName = "tablespaces" // the tablespaces by OID, or links to them
	volumesName     = "volumes"     // clones whose root is none of the two
	configName      = "config"      // configuration files from outside the data directory
	socketName      = "socket"      // the unix socket
	logName         = "server.log"  // what the server prints
)

// layout is where everything of a copy goes.
type layout struct {
	// data is the data directory: DESTINATION/data.
	data string
	// parts are the volumes to be cloned, parents before what is nested in them.
	parts []placed
	// links are to be made once the parts are there, by where they lie.
	links map[string]string
	// tablespaces by OID.
	tablespaces map[uint32]string
}

// placed is a volume and where its root goes.
type placed struct {
	volume   snap.Volume
	snapshot snap.Snapshot
	target   string
}

// realPaths are one path on each file system of the copy.
func (l layout) realPaths() []string {
	var paths []string
	for _, part := range l.parts {
		paths = append(paths, part.target)
	}
	return paths
}

// planLayout decides where the volumes go. One whose root is the data directory
// or a tablespace goes there; another goes below volumes/, with a link to what it
// holds. WAL volumes are left out: pg_wal becomes a directory that holds what the
// backup captured.
func (r *restoring) planLayout(destination string) (layout, error) {
	l := layout{
		data:  filepath.Join(destination, dataName),
		links: map[string]string{}, tablespaces: map[uint32]string{},
	}
	if err := r.placeTablespaces(destination, &l); err != nil {
		return l, err
	}
	volumes := slices.Clone(r.backup.Volumes)
	slices.SortStableFunc(volumes, func(a, b snap.Volume) int { return cmp.Compare(len(a.Root), len(b.Root)) })
	// now is where cluster paths are in the copy, as far as they are placed.
	now := map[string]string{}
	for index, volume := range volumes {
		if !slices.ContainsFunc(volume.Paths, func(p snap.Path) bool { return p.Role != snap.WALDirectory }) {
			continue
		}
		snapshot, found := r.backup.SnapshotOf(volume)
		if !found {
			return l, fault.New(fault.Storage, "", "backup %s names no snapshot of %s", r.backup.ID, volume.ID)
		}
		target := filepath.Join(destination, volumesName, strconv.Itoa(index))
		for _, path := range volume.Paths {
			if relative, err := volume.Relative(path.Path); err == nil && relative == "." && path.Role != snap.WALDirectory {
				target = l.wanted(path, now)
			}
		}
		if target == "" {
			return l, fault.New(fault.Storage, "", "backup %s: %s is nested in nothing that the backup holds", r.backup.ID, volume.Root)
		}
		for _, path := range volume.Paths {
			relative, err := volume.Relative(path.Path)
			if err != nil {
				return l, fmt.Errorf("backup %s: %w", r.backup.ID, err)
			}
			real := filepath.Join(target, relative)
			now[path.Path] = real
			if wanted := l.wanted(path, now); path.Role != snap.WALDirectory && wanted != real {
				l.links[wanted] = real
			}
		}
		l.parts = append(l.parts, placed{volume, snapshot, target})
	}
	return l, nil
}

// wanted is where a path is to be found in the copy.
func (l layout) wanted(path snap.Path, now map[string]string) string {
	switch path.Role {
	case snap.DataDirectory:
		return l.data
	case snap.Tablespace:
		return l.tablespaces[path.OID]
	}
	// Nested: at its place below the closest path above it.
	above, at := "", ""
	for old, real := range now {
		if old != path.Path && snap.IsBelow(path.Path, old) && len(old) > len(above) {
			above, at = old, real
		}
	}
	if above == "" {
		return ""
	}
	relative, err := filepath.Rel(above, path.Path)
	if err != nil {
		return ""
	}
	return filepath.Join(at, relative)
}

// placeTablespaces decides where each tablespace is to be found.
func (r *restoring) placeTablespaces(destination string, l *layout) error {
	unused := map[string]bool{}
	for old := range r.options.Tablespaces {
		unused[old] = true
	}
	for _, tablespace := range r.backup.Server.Tablespaces {
		if tablespace.InPlace() {
			continue
		}
		place := filepath.Join(destination, tablespacesName, strconv.FormatUint(uint64(tablespace.OID), 10))
		if mapped, found := r.options.Tablespaces[filepath.Clean(tablespace.Location)]; found {
			delete(unused, filepath.Clean(tablespace.Location))
			var err error
			if place, err = r.mappedPlace(destination, mapped); err != nil {
				return err
			}
		}
		l.tablespaces[tablespace.OID] = place
		r.result.Tablespaces = append(r.result.Tablespaces, Tablespace{
			OID: tablespace.OID, Name: tablespace.Name, Old: tablespace.Location, New: place,
		})
	}
	for old := range unused {
		return fault.New(fault.Usage, "pgsnap show names the backup's tablespaces", "--tablespace: the backup has no tablespace at %s", old)
	}
	return nil
}

func (r *restoring) mappedPlace(destination, mapped string) (string, error) {
	place, err := resolveNew(mapped)
	if err != nil {
		return "", err
	}
	if err := r.checkApart(place); err != nil {
		return "", err
	}
	if snap.IsBelow(place, destination) || snap.IsBelow(destination, place) {
		return "", fault.New(fault.Usage, "leave --tablespace out to have it there", "--tablespace: %s and the destination %s lie in each other", place, destination)
	}
	for _, other := range r.result.Tablespaces {
		if snap.IsBelow(place, other.New) || snap.IsBelow(other.New, place) {
			return "", fault.New(fault.Usage, "", "--tablespace: %s and %s lie in each other", place, other.New)
		}
	}
	return place, checkEmpty(place)
}
