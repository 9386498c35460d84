package reflink

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestCopyDataIsBounded copies no more than the file had at first, however much
// is appended, and no more than it has.
func TestCopyDataIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ has, had, want int64 }{
		"grown":         {has: 5000, had: 3000, want: 3000},
		"the same":      {has: 5000, had: 5000, want: 5000},
		"shrunk":        {has: 5000, had: 90000, want: 5000},
		"shrunk to 0":   {has: 0, had: 90000, want: 0},
		"grown from 0":  {has: 5000, had: 0, want: 0},
		"empty as ever": {has: 0, had: 0, want: 0},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, make([]byte, c.has), 0o600); err != nil {
			t.Fatal(err)
		}
		source, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		target, err := os.Create(path + ".copy")
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		if err := copyData(t.Context(), source, target, c.had); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := target.Stat(); err != nil || info.Size() != c.want {
			t.Errorf("%s: %d bytes, not %d", name, info.Size(), c.want)
		}
	}
}

// TestOpenFile opens what is no file any more, without waiting for anybody.
func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := errors.Join(
		os.WriteFile(at("file"), nil, 0o600), os.Mkdir(at("directory"), 0o700), syscall.Mkfifo(at("pipe"), 0o600),
		os.Symlink("file", at("link")), os.Symlink("nothing", at("link to nothing")),
	); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for name, want := range map[string]error{
		"file": nil, "directory": errChanged, "pipe": errChanged, "socket": errChanged, "link": errChanged,
		"link to nothing": errChanged, "nothing": fs.ErrNotExist,
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			file, info, err := (&pair{from: opened}).openFile(name)
			if !errors.Is(err, want) || err == nil && info.Name() != name {
				t.Errorf("%s: the error is %v", name, err)
			}
			if err == nil {
				_ = file.Close()
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it is still being opened", name)
		}
	}
}
