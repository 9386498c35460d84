package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"pgsnap/internal/durable"
	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// Copies are recorded in CATALOG/.copies, not in their destination: whoever owns
// the destination must not be able to tell root what to unmount and remove.
const copiesName = ".copies"

var copyPattern = regexp.MustCompile(`^copy-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$`)

// Copy is a restored copy of a cluster, and all that must be undone to be rid of
// it. It is written before each thing that it names is made.
type Copy struct {
	Schema int `json:"schema"`
	// Name is also that of its clones.
	Name        string    `json:"name"`
	Cluster     string    `json:"cluster"`
	Backup      string    `json:"backup"`
	CreatedAt   time.Time `json:"created_at"`
	Destination string    `json:"destination"`
	// DestinationMade: the directory itself was made too.
	DestinationMade bool `json:"destination_made"`
	// Before is who owned a destination that was there before, to be given back.
	Before *Owner       `json:"before,omitempty"`
	Clones []snap.Clone `json:"clones"`
	// Complete: the data directory was made ready, so that it must be there.
	Complete bool `json:"complete"`
	// BinDirectory holds the programs of its server, if they were found.
	BinDirectory string `json:"bin_directory,omitempty"`
	// Links and Directories were made outside of the destination.
	Links       []string `json:"links,omitempty"`
	Directories []string `json:"directories,omitempty"`
}

// Owner is a directory's owner and permissions.
type Owner struct {
	UID  int         `json:"uid"`
	GID  int         `json:"gid"`
	Mode os.FileMode `json:"mode"`
}

// NewCopy begins a record; nothing is written yet.
func NewCopy(b *snap.Backup, destination string, at time.Time) *Copy {
	return &Copy{
		Schema: snap.Schema, Name: "copy-" + snap.NewID(at), Cluster: b.Cluster, Backup: b.ID,
		CreatedAt: at, Destination: destination,
	}
}

// SaveCopy writes a copy's record, durably.
func (c Catalog) SaveCopy(record *Copy) error {
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Join(c.root, copiesName)
	if err := os.MkdirAll(dir, directory); err != nil {
		return c.unusable(err)
	}
	err = durable.WriteFile(filepath.Join(dir, record.Name+".json"), append(data, '\n'), 0o600)
	if err == nil {
		err = durable.SyncDirectory(c.root) // where the first copy makes .copies
	}
	if err != nil {
		return c.unusable(err)
	}
	return nil
}

// FindCopy is the copy in a destination.
func (c Catalog) FindCopy(destination string) (*Copy, error) {
	copies, err := c.Copies()
	if err != nil {
		return nil, err
	}
	for _, record := range copies {
		if record.Destination == destination {
			return record, nil
		}
	}
	return nil, fault.New(fault.NotFound, "name the directory that was given to pgsnap restore --to", "no copy was restored to %s", destination)
}

// Copies are all restored copies that were not released.
func (c Catalog) Copies() ([]*Copy, error) {
	dir := filepath.Join(c.root, copiesName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, c.unusable(err)
	}
	var copies []*Copy
	for _, entry := range entries {
		name, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord || !copyPattern.MatchString(name) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return nil, c.unusable(err)
		}
		record := new(Copy)
		err = json.Unmarshal(data, record)
		switch {
		case err != nil:
		case record.Schema < 1 || record.Schema > snap.Schema:
			err = fmt.Errorf("it has schema %d, and this pgsnap reads up to %d", record.Schema, snap.Schema)
		case record.Name != name:
			err = fmt.Errorf("it is the record of copy %q, out of its place", record.Name)
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.Storage, "", "record of a copy %s", path)
		}
		copies = append(copies, record)
	}
	return copies, nil
}

// RemoveCopy forgets a copy, all of which is gone.
func (c Catalog) RemoveCopy(record *Copy) error {
	dir := filepath.Join(c.root, copiesName)
	if err := os.Remove(filepath.Join(dir, record.Name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c.unusable(err)
	}
	return durable.SyncDirectory(dir)
}
