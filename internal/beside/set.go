package beside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pgsnap/internal/durable"
	"pgsnap/internal/snap"
)

// Maker makes the content of snapshots, and removes it.
type Maker struct {
	Cut    func(volume snap.Volume, content string) error
	Remove func(content string) error
	// Gradual: Remove can be interrupted with the content half gone.
	Gradual bool
}

// Snapshot makes the snapshots of a set, one after another. Those that are there
// already stay as they are. Where it fails, what it has made is gone again.
func (m Maker) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) ([]snap.Snapshot, error) {
	var snapshots []snap.Snapshot
	var made []snap.Volume
	for _, volume := range volumes {
		snapshot, err := m.find(volume, name)
		if errors.Is(err, snap.ErrNoSnapshot) {
			if snapshot, err = m.make(ctx, volume, name, metadata); err == nil {
				made = append(made, volume)
			}
		}
		if err != nil {
			for _, volume := range made {
				err = errors.Join(err, m.Delete(volume, name))
			}
			return nil, err
		}
		snapshots = append(snapshots, snapshot)
	}
	return snapshots, nil
}

// find is the complete snapshot of that name. A half-made one is removed.
func (m Maker) find(volume snap.Volume, name string) (snap.Snapshot, error) {
	found, err := Of(volume).Find(name)
	if err != nil || found.Complete {
		return found, err
	}
	if err := m.Delete(volume, name); err != nil {
		return found, err
	}
	return found, snap.ErrNoSnapshot
}

func (m Maker) make(ctx context.Context, volume snap.Volume, name string, metadata snap.Metadata) (snapshot snap.Snapshot, err error) {
	if err := context.Cause(ctx); err != nil {
		return snapshot, err
	}
	shelf := Of(volume)
	if err := shelf.Begin(name, metadata); err != nil {
		return snapshot, err
	}
	if err = m.Cut(volume, shelf.Content(name)); err == nil {
		snapshot, err = shelf.finish(name, metadata)
	}
	if err != nil {
		err = errors.Join(err, m.Delete(volume, name))
	}
	return snapshot, err
}

// Delete removes a snapshot, then its mark, then the directories that have become
// empty. Content that no mark is beside is not touched.
func (m Maker) Delete(volume snap.Volume, name string) error {
	shelf := Of(volume)
	content := shelf.Content(name)
	_, err := shelf.Find(name)
	switch {
	case errors.Is(err, snap.ErrNoSnapshot):
		if _, err := os.Lstat(content); err == nil {
			return shelf.unmarked(name)
		}
	case err != nil:
		return err
	default:
		if m.Gradual {
			if err := shelf.spoil(name); err != nil {
				return err
			}
		}
		if err := m.Remove(content); err != nil {
			return err
		}
		if err := os.Remove(shelf.markPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := durable.RemoveUnfinished(shelf.markPath(name)); err != nil {
		return err
	}
	shelf.tidy(name)
	return nil
}

// Commit adds metadata to the marks of a set and makes them durable.
func Commit(volumes []snap.Volume, set snap.Set, metadata snap.Metadata) error {
	for _, volume := range volumes {
		for _, snapshot := range set.Snapshots {
			if snapshot.VolumeID != volume.ID {
				continue
			}
			if err := Of(volume).commit(snapshot.Name, metadata); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit adds metadata to the mark of a snapshot and makes it durable.
func (s Shelf) commit(name string, metadata snap.Metadata) error {
	m, err := s.read(name)
	if err == nil && !m.Complete {
		err = snap.ErrNoSnapshot
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Content(name), err)
	}
	for key, text := range metadata {
		m.Metadata[key] = value(text)
	}
	if err := s.write(m, durable.WriteFile); err != nil {
		return err
	}
	named := filepath.Dir(s.Content(name))
	return errors.Join(durable.SyncDirectory(filepath.Dir(named)), durable.SyncDirectory(s.volume.Place))
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

// list finds all marked snapshots of the volume. In its place there may be those
// that another driver once made of it.
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
		if errors.Is(err, snap.ErrNoSnapshot) || errors.Is(err, errForeign) {
			continue
		}
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, found)
	}
	return snapshots, nil
}
