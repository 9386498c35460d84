// Package beside keeps snapshots that are directories, in a directory beside
// their volume, and the marks that say they are pgsnap's. It is for storage that
// can't carry metadata itself.
//
//	PLACE/.pgsnap/NAME/VOLUME        the snapshot's content
//	PLACE/.pgsnap/NAME/VOLUME.json   its mark, written before the content
package beside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"pgsnap/internal/durable"
	"pgsnap/internal/snap"
)

// Folder is the name of the directory that holds snapshots.
const Folder = ".pgsnap"

const markSuffix = ".json"

// Shelf is where the snapshots of one volume are kept.
type Shelf struct{ volume snap.Volume }

// Of is the shelf of a volume, whose Place is set.
func Of(volume snap.Volume) Shelf { return Shelf{volume} }

// Outside is the nearest directory above root that lies in none of the cluster's
// paths; snapshots kept in one of them would be a part of the next.
func Outside(root string, paths []snap.Path) string {
	place := filepath.Dir(root)
	for {
		inside := false
		for _, path := range paths {
			inside = inside || snap.IsBelow(place, path.Path)
		}
		if !inside || place == "/" {
			return place
		}
		place = filepath.Dir(place)
	}
}

// mark is what stands beside a snapshot.
type mark struct {
	Driver   string        `json:"driver"`
	Volume   string        `json:"volume"`
	Name     string        `json:"name"`
	Complete bool          `json:"complete"`
	CutAt    time.Time     `json:"cut_at"`
	Metadata snap.Metadata `json:"metadata"`
}

// Content is where the content of the snapshot of that name is.
func (s Shelf) Content(name string) string {
	base, err := filepath.Rel(s.volume.Place, s.volume.Root)
	if err != nil || !filepath.IsLocal(base) || base == "." {
		base = s.volume.Root // Place was chosen by configuration, or is the root itself
	}
	return filepath.Join(s.volume.Place, Folder, name, url.PathEscape(base))
}

func (s Shelf) markPath(name string) string { return s.Content(name) + markSuffix }

// Begin marks a snapshot that is about to be made. Neither this mark nor that of
// Cut is durable: the catalog already knows the name, and the window must stay
// short.
func (s Shelf) Begin(name string, metadata snap.Metadata) error {
	if err := os.MkdirAll(filepath.Dir(s.Content(name)), 0o700); err != nil {
		return err
	}
	return s.write(mark{Name: name, Metadata: metadata}, os.WriteFile)
}

// Cut marks a snapshot whose content is there, and returns it.
func (s Shelf) Cut(name string, metadata snap.Metadata) (snap.Snapshot, error) {
	m := mark{Name: name, Complete: true, CutAt: time.Now(), Metadata: metadata}
	if err := s.write(m, os.WriteFile); err != nil {
		return snap.Snapshot{}, err
	}
	return s.snapshot(m), nil
}

// commit adds metadata to the mark of a snapshot and makes it durable.
func (s Shelf) commit(snapshot snap.Snapshot, metadata snap.Metadata) error {
	name := snapshot.Name
	m := mark{Name: name, Complete: true, CutAt: snapshot.CutAt, Metadata: metadata}
	if err := s.write(m, durable.WriteFile); err != nil {
		return err
	}
	named := filepath.Dir(s.Content(name))
	return errors.Join(durable.SyncDirectory(filepath.Dir(named)), durable.SyncDirectory(s.volume.Place))
}

func (s Shelf) write(m mark, write func(string, []byte, os.FileMode) error) error {
	m.Driver, m.Volume = s.volume.Driver, s.volume.ID
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return write(s.markPath(m.Name), data, 0o600)
}

func (s Shelf) snapshot(m mark) snap.Snapshot {
	content := s.Content(m.Name)
	return snap.Snapshot{
		Driver: s.volume.Driver, VolumeID: s.volume.ID, Name: m.Name, ID: content,
		Complete: m.Complete, CutAt: m.CutAt, Directory: content,
	}
}

// Find is the snapshot of that name. Without one the error is
// snap.ErrNoSnapshot; without its content it is not complete.
func (s Shelf) Find(name string) (snap.Snapshot, error) {
	data, err := os.ReadFile(s.markPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return snap.Snapshot{}, snap.ErrNoSnapshot
	}
	if err != nil {
		return snap.Snapshot{}, err
	}
	var m mark
	if err := json.Unmarshal(data, &m); err != nil {
		return s.snapshot(mark{Name: name}), nil // torn by a power failure before the commit
	}
	if m.Driver != s.volume.Driver || m.Volume != s.volume.ID || m.Name != name {
		return snap.Snapshot{}, fmt.Errorf("%s marks another snapshot: %s of %s", s.markPath(name), m.Name, m.Volume)
	}
	info, err := os.Stat(s.Content(name))
	m.Complete = m.Complete && err == nil && info.IsDir()
	return s.snapshot(m), nil
}

// list finds all marked snapshots of the volume.
func (s Shelf) list() ([]snap.Snapshot, error) {
	names, err := os.ReadDir(filepath.Join(s.volume.Place, Folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var snapshots []snap.Snapshot
	for _, entry := range names {
		found, err := s.Find(entry.Name())
		if errors.Is(err, snap.ErrNoSnapshot) {
			continue
		}
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, found)
	}
	return snapshots, nil
}

// Delete removes a snapshot with remove, then its mark, then the directories
// that have become empty. Content that no mark is beside is not touched.
func (s Shelf) Delete(name string, remove func(content string) error) error {
	content := s.Content(name)
	_, err := s.Find(name)
	switch {
	case errors.Is(err, snap.ErrNoSnapshot):
		if _, err := os.Lstat(content); err == nil {
			return fmt.Errorf("%s has no mark of pgsnap's beside it", content)
		}
	case err != nil:
		return err
	default:
		if err := remove(content); err != nil {
			return err
		}
		if err := os.Remove(s.markPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Both fail where another volume's snapshots are there still, as they should.
	_ = os.Remove(filepath.Dir(content))
	_ = os.Remove(filepath.Join(s.volume.Place, Folder))
	return nil
}

// Commit adds metadata to the marks of a set and makes them durable.
func Commit(volumes []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	for _, volume := range volumes {
		for _, snapshot := range set.Snapshots {
			if snapshot.VolumeID != volume.ID {
				continue
			}
			if err := Of(volume).commit(snapshot, metadata); err != nil {
				return err
			}
		}
	}
	return nil
}

// List finds all marked snapshots of volumes.
func List(volumes []snap.Volume) ([]snap.Snapshot, error) {
	var snapshots []snap.Snapshot
	for _, volume := range volumes {
		found, err := Of(volume).list()
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, found...)
	}
	return snapshots, nil
}
