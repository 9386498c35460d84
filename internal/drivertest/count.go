package drivertest

import (
	"encoding/binary"
	"os"
	"testing"
)

// countInto writes rising numbers into files, each to all of them in their
// order, and each durable before the next file's, until it is stopped.
func countInto(t *testing.T, paths []string) (stop func()) {
	t.Helper()
	var files []*os.File
	for _, path := range paths {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			_, err = file.WriteAt(make([]byte, 8), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- count(files, end) }()
	return func() {
		close(end)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, file := range files {
			_ = file.Close()
		}
	}
}

func count(files []*os.File, end <-chan struct{}) error {
	for number := uint64(1); ; number++ {
		for _, file := range files {
			if _, err := file.WriteAt(binary.LittleEndian.AppendUint64(nil, number), 0); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
		select {
		case <-end:
			return nil
		default:
		}
	}
}

func readCount(t *testing.T, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) != 8 {
		t.Fatalf("%s has %d bytes", path, len(data))
	}
	return int64(binary.LittleEndian.Uint64(data))
}
