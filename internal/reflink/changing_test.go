package reflink_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/beside"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// meanwhile calls change over and over until the test has ended or stop is
// called.
func meanwhile(t *testing.T, change func() error) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if err := change(); err != nil {
				ended <- err
				return
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(end)
		if err := <-ended; err != nil {
			t.Errorf("change the files: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestChangingFiles copies a directory in which files and directories come, go,
// grow, shrink and become one another, as they do below a server at work.
func TestChangingFiles(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			_, top := newFileSystem(t, kind, 600)
			pgdata := filepath.Join(top.Dir, "data")
			put(t, pgdata, "base/5/1", "base/5/2", "PG_VERSION", "zzz/last")
			stable := noise(300_000)
			pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, "base/5/1259"), stable, 0o600))
			dir := filepath.Join(pgdata, "base/5")
			defer meanwhile(t, func() error { return changeOne(dir) })()
			defer meanwhile(t, func() error { return changeOne(dir) })()

			volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
			pgtest.Check(t, err)
			for round := range 25 {
				name := fmt.Sprint("pgsnap-", round)
				start := time.Now()
				set, err := reflink.Driver{}.Snapshot(t.Context(), name, volumes, nil)
				pgtest.Check(t, err)
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				content := set.Snapshots[0].Directory
				copied, err := os.ReadFile(filepath.Join(content, "base/5/1259"))
				if err != nil || !bytes.Equal(copied, stable) {
					t.Fatalf("a file that did not change is not in the copy as it is: %v", err)
				}
				if last, err := os.ReadFile(filepath.Join(content, "zzz/last")); err != nil || string(last) != "zzz/last" {
					t.Fatalf("the last file is %q, %v", last, err)
				}
				pgtest.Check(t, reflink.Driver{}.Delete(t.Context(), volumes[0], name))
			}
		})
	}
}

// changeOne does one thing to one of a few names in a directory.
func changeOne(dir string) error {
	path := filepath.Join(dir, fmt.Sprint(16384+rand.IntN(8)))
	var err error
	switch rand.IntN(8) {
	case 0, 1:
		err = writeTo(path, os.O_CREATE|os.O_TRUNC, 1<<20)
	case 2:
		err = os.Truncate(path, int64(rand.IntN(1<<20)))
	case 3:
		err = writeTo(path, os.O_APPEND, 1<<18)
	case 4:
		err = os.RemoveAll(path)
	case 5:
		put := filepath.Join(path, "below")
		err = errors.Join(os.Mkdir(path, 0o700), writeTo(put, os.O_CREATE, 100))
	case 6:
		err = os.Symlink("nowhere/at all", path)
	case 7:
		err = syscall.Mkfifo(path, 0o600)
	}
	for _, expected := range []error{
		fs.ErrExist, fs.ErrNotExist, syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EINVAL, // it is something else
		syscall.ENXIO, syscall.EPIPE, syscall.EAGAIN, // a pipe, which nobody reads
	} {
		if errors.Is(err, expected) {
			return nil
		}
	}
	return err
}

func writeTo(path string, flags, most int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, rand.IntN(most)))
	return errors.Join(err, file.Close())
}

// TestSwappedLinks has somebody put links, in the place of a file and of a
// directory, to what only root can read.
func TestSwappedLinks(t *testing.T) {
	_, top := newFileSystem(t, "ext4", 200)
	secret := filepath.Join(top.Dir, "root's")
	put(t, secret, "16384", "below/16384")
	pgdata := filepath.Join(top.Dir, "data")
	put(t, pgdata, "base/4/1", "base/5/1259", "base/5/below/1259", "base/6/1")
	links := filepath.Join(top.Dir, "links")
	pgtest.Check(t, os.Mkdir(links, 0o700))
	pgtest.Check(t, os.Symlink(secret, filepath.Join(links, "dir")))
	pgtest.Check(t, os.Symlink(filepath.Join(secret, "16384"), filepath.Join(links, "file")))
	for link, real := range map[string]string{"dir": "base/5", "file": "base/4/1"} {
		link, real = filepath.Join(links, link), filepath.Join(pgdata, real)
		defer meanwhile(t, func() error {
			return unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, real, unix.RENAME_EXCHANGE)
		})()
	}
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	for round := range 300 {
		name := fmt.Sprint("pgsnap-", round)
		set, err := reflink.Driver{}.Snapshot(t.Context(), name, volumes, nil)
		pgtest.Check(t, err)
		err = filepath.WalkDir(set.Snapshots[0].Directory, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), "16384") || entry.Name() == "16384" {
				t.Fatalf("round %d: %s was copied from %s", round, path, secret)
			}
			return err
		})
		pgtest.Check(t, err)
		pgtest.Check(t, reflink.Driver{}.Delete(t.Context(), volumes[0], name))
	}
}

// TestVolumeVanishes is another matter than a file that does.
func TestVolumeVanishes(t *testing.T) {
	top := t.TempDir()
	pgdata := filepath.Join(top, "data")
	put(t, pgdata, "PG_VERSION")
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	for what, change := range map[string]func() error{
		"is gone":   func() error { return nil },
		"is a file": func() error { return os.WriteFile(pgdata, nil, 0o600) },
		"is a link": func() error { return os.Symlink("/etc", pgdata) },
	} {
		pgtest.Check(t, os.RemoveAll(pgdata))
		pgtest.Check(t, change())
		if _, err := (reflink.Driver{}).Snapshot(t.Context(), "pgsnap-1", volumes, nil); err == nil {
			t.Errorf("the volume %s, and there is a snapshot", what)
		}
		if _, err := os.Lstat(filepath.Join(top, beside.Folder)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the volume %s, and something is left: %v", what, err)
		}
	}
}

// TestCloneOfHalfASnapshot makes sure that what vanishes from a snapshot while
// it is cloned is not taken for a file that its server removed.
func TestCloneOfHalfASnapshot(t *testing.T) {
	top := t.TempDir()
	pgdata := filepath.Join(top, "data")
	for index := range 250 {
		put(t, pgdata, fmt.Sprintf("base/%d/%d", index%20, index))
	}
	contents := cut(t, data(pgdata))
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	snapshots, err := reflink.Driver{}.List(t.Context(), volumes)
	pgtest.Check(t, err)
	want := len(names(t, contents[0]))
	removed := make(chan error, 1)
	target := filepath.Join(top, "clone")
	go func() {
		for t.Context().Err() == nil {
			if _, err := os.Lstat(filepath.Join(target, "base")); err == nil {
				break
			}
		}
		removed <- reflink.Driver{}.Delete(t.Context(), volumes[0], "pgsnap-1")
	}()
	_, err = reflink.Driver{}.Clone(t.Context(), snapshots[0], "copy-1", target)
	pgtest.Check(t, <-removed)
	if err == nil && len(names(t, target)) != want {
		t.Errorf("the clone has %d of %d files, and there is no error", len(names(t, target)), want)
	}
	if _, statErr := os.Lstat(target); err != nil && !errors.Is(statErr, fs.ErrNotExist) {
		t.Errorf("after the error %v, there is something at the target", err)
	}
}
