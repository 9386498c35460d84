// Package durable writes files that are there, whole, after a power failure.
package durable

import (
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteFile writes a file whole or not at all, over an old one if there is one.
// It is on disk, with its entry in its directory, when WriteFile returns.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, mode, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	return SyncDirectory(dir) // which renameio leaves to the caller
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
