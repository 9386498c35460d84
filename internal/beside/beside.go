// Package beside keeps snapshots that are directories, in a directory beside
// their volume, and the marks that say they are pgsnap's. It is for storage that
// can't carry metadata itself.
//
//	PLACE/.pgsnap/NAME/VOLUME        the snapshot's content
//	PLACE/.pgsnap/NAME/VOLUME.json   its mark, written before the content
package beside

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// Content is where the content of the snapshot of that name is.
func (s Shelf) Content(name string) string {
	base, err := filepath.Rel(s.volume.Place, s.volume.Root)
	if err != nil || !filepath.IsLocal(base) || base == "." {
		base = s.volume.Root // Place was chosen by configuration, or is the root itself
	}
	return filepath.Join(s.volume.Place, Folder, name, escape(base))
}

// escape makes a path the name of one file, and of no mark. It leaves room for
// what is appended to it.
func escape(path string) string {
	const longest = 180 // of the 255 bytes that a name may have
	escaped := url.PathEscape(path)
	if before, isMark := strings.CutSuffix(escaped, markSuffix); isMark {
		escaped = before + "%2E" + markSuffix[1:]
	}
	if len(escaped) > longest {
		sum := sha256.Sum256([]byte(path))
		escaped = fmt.Sprintf("%s,%x", escaped[:longest-33], sum[:16]) // no escaped name has a comma
	}
	return escaped
}

func (s Shelf) markPath(name string) string { return s.Content(name) + markSuffix }

// Begin marks a snapshot that is about to be made, where nothing is yet. Neither
// this mark nor that of a finished one is durable: the catalog already knows the
// name, and the window must stay short.
func (s Shelf) Begin(name string, metadata snap.Metadata) error {
	if _, err := os.Lstat(s.Content(name)); err == nil {
		return s.unmarked(name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeDirectory(name); err != nil {
		return err
	}
	if err := s.write(mark{Name: name, Metadata: encode(metadata)}, os.WriteFile); err != nil {
		_ = os.Remove(s.markPath(name))
		s.tidy(name)
		return err
	}
	return nil
}

// makeDirectory makes the directories above a snapshot. Those of others may be
// removed meanwhile, and with the last of them the folder.
func (s Shelf) makeDirectory(name string) (err error) {
	for range 100 {
		err = os.MkdirAll(filepath.Dir(s.Content(name)), 0o700)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

func (s Shelf) unmarked(name string) error {
	return fmt.Errorf("%s has no mark of pgsnap's beside it", s.Content(name))
}

// finish marks a snapshot whose content is there, and returns it.
func (s Shelf) finish(name string, metadata snap.Metadata) (snap.Snapshot, error) {
	m := mark{Name: name, Complete: true, CutAt: time.Now(), Metadata: encode(metadata)}
	if err := s.write(m, os.WriteFile); err != nil {
		return snap.Snapshot{}, err
	}
	return s.snapshot(m), nil
}

// tidy removes the directories above a snapshot that have become empty.
func (s Shelf) tidy(name string) { Tidy(filepath.Dir(s.Content(name))) }

// Tidy removes the directory of the snapshots of a name, and the folder that it
// is in, if they are empty. Those that hold something refuse.
func Tidy(named string) {
	_ = os.Remove(named)
	_ = os.Remove(filepath.Dir(named))
}
