// Package durable writes files that are there, whole, after a power failure.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// WriteFile writes a file whole or not at all, over an old one if there is one,
// and with the mode given: renameio.WriteFile would keep the old one's. It is on
// disk, with its entry in its directory, when WriteFile returns.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer file.Cleanup() // of what was not written to its end
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return SyncDirectory(dir) // which renameio leaves to the caller
}

// RemoveUnfinished removes what a WriteFile of path that was killed left beside
// it: renameio's files are named like it, with a dot before and digits behind.
func RemoveUnfinished(path string) error {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		digits, ours := strings.CutPrefix(entry.Name(), prefix)
		if ours && digits != "" && strings.Trim(digits, "0123456789") == "" {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}

// SyncDirectory flushes a directory's entries.
func SyncDirectory(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer handle.Close()
	return handle.Sync()
}
