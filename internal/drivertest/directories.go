package drivertest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgsnap/internal/beside"
	"pgsnap/internal/snap"
)

// Directories brings what is alike on all storage whose volumes and snapshots
// are directories on a file system and whose marks package beside keeps: top is
// a directory for the volumes, and all else of the Storage that is not set yet.
func (s Storage) Directories(t *testing.T, top string) Storage {
	t.Helper()
	if s.Near == "" {
		s.Near = filepath.Join(top, "near")
		if err := os.Mkdir(s.Near, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var volumes []string
	if s.NewVolume == nil {
		s.NewVolume = func(t *testing.T, name string) string {
			root := filepath.Join(top, name)
			if err := os.Mkdir(root, 0o700); err != nil {
				t.Fatal(err)
			}
			return root
		}
		s.RemoveVolume = func(t *testing.T, root string) {
			if err := os.RemoveAll(root); err != nil {
				t.Error(err)
			}
		}
	}
	makeVolume := s.NewVolume
	s.NewVolume = func(t *testing.T, name string) string {
		root := makeVolume(t, name)
		volumes = append(volumes, root)
		t.Cleanup(func() { s.RemoveVolume(t, root) })
		return root
	}
	s.Inventory = func(t *testing.T) []string {
		return treeOf(t, top, func(path string) bool { return slices.Contains(volumes, path) }).lines()
	}
	if s.Foreign == nil {
		s.Foreign = putDirectory
	}
	s.Metadata = markMetadata
	return s
}

// putDirectory puts a directory of somebody else's where a snapshot would be.
func putDirectory(t *testing.T, volume snap.Volume, name string) (remove func()) {
	t.Helper()
	path := beside.Of(volume).Content(name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "precious"), []byte("somebody's"), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() { removeUpTo(t, path) }
}

// removeUpTo removes a directory where a snapshot would be, and those above it
// that are empty then.
func removeUpTo(t *testing.T, content string) {
	if err := os.RemoveAll(content); err != nil {
		t.Error(err)
	}
	named := filepath.Dir(content)
	_ = os.Remove(named)
	_ = os.Remove(filepath.Dir(named))
}

// markMetadata reads a mark as it lies on disk: text as text, any other bytes in
// base64.
func markMetadata(t *testing.T, volume snap.Volume, name string) snap.Metadata {
	t.Helper()
	data, err := os.ReadFile(beside.Of(volume).Content(name) + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var mark struct{ Metadata map[string]json.RawMessage }
	if err := json.Unmarshal(data, &mark); err != nil {
		t.Fatal(err)
	}
	metadata := snap.Metadata{}
	for key, raw := range mark.Metadata {
		var text string
		var binary struct{ Base64 []byte }
		if err := json.Unmarshal(raw, &text); err == nil {
			metadata[key] = text
		} else if err := json.Unmarshal(raw, &binary); err == nil {
			metadata[key] = string(binary.Base64)
		} else {
			t.Errorf("%s in the mark is %s", key, raw)
		}
	}
	return metadata
}
