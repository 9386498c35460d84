package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/renameio/v2"

	"pgsnap/internal/durable"
	"pgsnap/internal/pgtest"
)

func TestWriteFile(t *testing.T) {
	const mode = 0o600
	for name, before := range map[string]func(path string) error{
		"new":         func(string) error { return nil },
		"over a file": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("old", 1000)), mode) },
		// The old file's mode must not stay: what is written may be a secret.
		"over a readable file": func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"over a link":          func(path string) error { return os.Symlink("/nowhere/at/all", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			pgtest.Check(t, before(path))
			pgtest.Check(t, durable.WriteFile(path, []byte("new"), mode))
			if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
				t.Errorf("it holds %q (%v)", data, err)
			}
			info, err := os.Lstat(path)
			pgtest.Check(t, err)
			if info.Mode() != mode {
				t.Errorf("its mode is %v", info.Mode())
			}
			assertAlone(t, path)
		})
	}
}

func TestWriteFileIntoNothing(t *testing.T) {
	err := durable.WriteFile(filepath.Join(t.TempDir(), "missing", "file"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

// A failed write leaves the old file as it was, and nothing beside it.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	disk := pgtest.Mount(t, pgtest.New(t), "ext4", 8)
	path := filepath.Join(disk.Dir, "sub", "file")
	pgtest.Check(t, os.Mkdir(filepath.Dir(path), 0o700))
	pgtest.Check(t, durable.WriteFile(path, []byte("old"), 0o600))
	err := durable.WriteFile(path, make([]byte, 16<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("the old file holds %d bytes (%v)", len(data), err)
	}
	assertAlone(t, path)
}

func TestSyncDirectory(t *testing.T) {
	dir := t.TempDir()
	pgtest.Check(t, durable.SyncDirectory(dir))
	if err := durable.SyncDirectory(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func assertAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	pgtest.Check(t, err)
	for _, entry := range entries {
		if entry.Name() != filepath.Base(path) {
			t.Errorf("%s was left beside it", entry.Name())
		}
	}
}

// TestRemoveUnfinished: only what a killed write of that file left goes.
func TestRemoveUnfinished(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mark.json")
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	kept := []string{"mark.json", ".mark.json", ".mark.json5.bak", "other", ".other.json12"}
	for _, name := range kept {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.RemoveUnfinished(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", file.Name(), err)
	}
	for _, name := range kept {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := durable.RemoveUnfinished(filepath.Join(dir, "absent", "x")); err != nil {
		t.Error(err)
	}
}
