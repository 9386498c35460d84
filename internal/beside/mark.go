package beside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unicode/utf8"

	"pgsnap/internal/snap"
)

// mark is what stands beside a snapshot.
type mark struct {
	Driver   string           `json:"driver"`
	Volume   string           `json:"volume"`
	Name     string           `json:"name"`
	Complete bool             `json:"complete"`
	CutAt    time.Time        `json:"cut_at"`
	Metadata map[string]value `json:"metadata"`
}

// value is text in JSON, where JSON can hold it.
type value string

type encoded struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON keeps what is not UTF-8, such as a backup label in the server's
// encoding.
func (v value) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(v)) {
		return json.Marshal(string(v))
	}
	return json.Marshal(encoded{[]byte(v)})
}

// UnmarshalJSON reads both forms.
func (v *value) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, (*string)(v)) == nil {
		return nil
	}
	var binary encoded
	err := json.Unmarshal(data, &binary)
	*v = value(binary.Base64)
	return err
}

func encode(metadata snap.Metadata) map[string]value {
	values := map[string]value{}
	for key, text := range metadata {
		values[key] = value(text)
	}
	return values
}

// spoil marks a snapshot as not complete any more. It needs no space.
func (s Shelf) spoil(name string) error { return os.Truncate(s.markPath(name), 0) }

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

// errForeign is that a mark is that of another snapshot.
var errForeign = errors.New("it marks another snapshot")

// Find is the snapshot of that name. Without one the error is
// snap.ErrNoSnapshot; without its content it is not complete.
func (s Shelf) Find(name string) (snap.Snapshot, error) {
	m, err := s.read(name)
	if err != nil {
		return snap.Snapshot{}, err
	}
	return s.snapshot(m), nil
}

func (s Shelf) read(name string) (mark, error) {
	data, err := os.ReadFile(s.markPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, snap.ErrNoSnapshot
	}
	if err != nil {
		return mark{}, err
	}
	var m mark
	if err := json.Unmarshal(data, &m); err != nil {
		return mark{Name: name}, nil // spoiled, or torn by a power failure before the commit
	}
	if m.Driver != s.volume.Driver || m.Volume != s.volume.ID || m.Name != name {
		return mark{}, fmt.Errorf("%s: %w: %s of %s", s.markPath(name), errForeign, m.Name, m.Volume)
	}
	if m.Metadata == nil {
		m.Metadata = map[string]value{}
	}
	info, err := os.Lstat(s.Content(name))
	m.Complete = m.Complete && err == nil && info.IsDir()
	return m, nil
}
