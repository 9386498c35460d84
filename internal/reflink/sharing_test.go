package reflink_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// TestShares makes sure that neither a snapshot nor a clone takes space where the
// file system shares blocks, and that only one that can't makes copies.
func TestShares(t *testing.T) {
	for name, kind := range map[string]string{"xfs": "xfs", "btrfs": "btrfs", "btrfs without copy-on-write": "btrfs", "ext4": "ext4"} {
		t.Run(name, func(t *testing.T) {
			_, top := newFileSystem(t, kind, 400)
			pgdata := filepath.Join(top.Dir, "data")
			put(t, pgdata, "base/5/")
			if name != kind {
				pgtest.Check(t, exec.Command("chattr", "-R", "+C", pgdata).Run())
			}
			source := filepath.Join(pgdata, "base/5/1259")
			pgtest.Check(t, os.WriteFile(source, noise(40<<20), 0o600))
			flush(t, top.Dir)
			used := usedBytes(t, top.Dir)

			volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
			pgtest.Check(t, err)
			set, err := reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
			pgtest.Check(t, err)
			target := filepath.Join(top.Dir, "clone")
			_, err = reflink.Driver{}.Clone(t.Context(), set.Snapshots[0], "copy-1", target)
			pgtest.Check(t, err)
			flush(t, top.Dir)

			copies := []string{filepath.Join(set.Snapshots[0].Directory, "base/5/1259"), filepath.Join(target, "base/5/1259")}
			grown := usedBytes(t, top.Dir) - used
			if kind == "ext4" {
				if grown < 80<<20 {
					t.Errorf("two copies of 40 MiB took %d bytes", grown)
				}
				return
			}
			if grown > 8<<20 {
				t.Errorf("two copies of 40 MiB took %d bytes", grown)
			}
			for _, path := range copies {
				shared, unshared := sharedBytes(t, path)
				if unshared > 0 || shared < 40<<20 {
					t.Errorf("%s shares %d bytes and has %d to itself", path, shared, unshared)
				}
			}
		})
	}
}

// TestSharesAcrossKinds copies what lies on another file system, and goes on to
// share what does not.
func TestSharesAcrossKinds(t *testing.T) {
	lab, top := newFileSystem(t, "xfs", 300)
	other := pgtest.Mount(t, lab, "xfs", 300)
	pgdata := filepath.Join(top.Dir, "data")
	put(t, pgdata, "other/", "zzz/")
	pgtest.Check(t, os.WriteFile(filepath.Join(other.Dir, "file"), noise(100_000), 0o600))
	const more = 50 // all of which several workers can't have begun before the first
	for index := range more {
		pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, "zzz", fmt.Sprint(index)), noise(100_000), 0o600))
	}
	pgtest.Check(t, unix.Mount(other.Dir, filepath.Join(pgdata, "other"), "", unix.MS_BIND, ""))
	content := cut(t, data(pgdata))[0]
	if copied, err := os.ReadFile(filepath.Join(content, "other/file")); err != nil || !bytes.Equal(copied, noise(100_000)) {
		t.Errorf("the file on the other file system was not copied: %v", err)
	}
	flush(t, top.Dir)
	for index := range more {
		path := filepath.Join(content, "zzz", fmt.Sprint(index))
		if shared, unshared := sharedBytes(t, path); unshared > 0 || shared == 0 {
			t.Errorf("%s shares %d bytes and has %d to itself", path, shared, unshared)
		}
	}
}

// TestCopiesLargeAndSparse has files longer than what is copied at once, with
// holes where the bounds are.
func TestCopiesLargeAndSparse(t *testing.T) {
	_, top := newFileSystem(t, "ext4", 1024)
	pgdata := filepath.Join(top.Dir, "data")
	put(t, pgdata, "PG_VERSION")
	const mebibyte = 1 << 20
	for name, pieces := range map[string][]int64{ // from, to, in MiB; the last is the size
		"all data":      {0, 70, 70},
		"all hole":      {40},
		"hole at start": {20, 21, 21},
		"hole at end":   {0, 1, 4000},
		"over chunks":   {60, 66, 127, 129, 140},
	} {
		file, err := os.Create(filepath.Join(pgdata, name))
		pgtest.Check(t, err)
		for index := 0; index+1 < len(pieces); index += 2 {
			_, err := file.WriteAt(noise(int(pieces[index+1]-pieces[index])*mebibyte-1), pieces[index]*mebibyte)
			pgtest.Check(t, err)
		}
		pgtest.Check(t, file.Truncate(pieces[len(pieces)-1]*mebibyte))
		pgtest.Check(t, file.Close())
	}
	flush(t, top.Dir)
	content := cut(t, data(pgdata))[0]
	flush(t, top.Dir)
	for _, name := range names(t, pgdata) {
		if name == "hole at end" {
			continue // its sum would take seconds; its size and blocks are compared
		}
		if sum(t, filepath.Join(pgdata, name)) != sum(t, filepath.Join(content, name)) {
			t.Errorf("%s has another content", name)
		}
	}
	for _, name := range names(t, pgdata) {
		var from, to unix.Stat_t
		pgtest.Check(t, unix.Stat(filepath.Join(pgdata, name), &from))
		pgtest.Check(t, unix.Stat(filepath.Join(content, name), &to))
		if to.Size != from.Size || to.Blocks > from.Blocks+2048 {
			t.Errorf("%s has %d bytes in %d blocks, its copy %d in %d", name, from.Size, from.Blocks, to.Size, to.Blocks)
		}
	}
}

func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // never fails
	return data
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	file, err := os.Open(path)
	pgtest.Check(t, err)
	defer file.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	pgtest.Check(t, err)
	return [32]byte(hash.Sum(nil))
}

func flush(t *testing.T, dir string) {
	t.Helper()
	handle, err := os.Open(dir)
	pgtest.Check(t, err)
	pgtest.Check(t, errors.Join(unix.Syncfs(int(handle.Fd())), handle.Close()))
}

func usedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var stat unix.Statfs_t
	pgtest.Check(t, unix.Statfs(dir, &stat))
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize
}

// sharedBytes asks which of a file's extents others have too (FS_IOC_FIEMAP of
// linux/fiemap.h).
func sharedBytes(t *testing.T, path string) (shared, unshared uint64) {
	t.Helper()
	const (
		fiemap     = 0xC020660B
		headerSize = 32
		extentSize = 56
		extents    = 512
		flagShared = 0x2000
	)
	file, err := os.Open(path)
	pgtest.Check(t, err)
	defer file.Close()
	request := make([]byte, headerSize+extents*extentSize)
	binary.NativeEndian.PutUint64(request[8:], ^uint64(0)) // to the end
	binary.NativeEndian.PutUint32(request[24:], extents)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), fiemap, uintptr(unsafe.Pointer(&request[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for index := range int(binary.NativeEndian.Uint32(request[20:])) {
		extent := request[headerSize+index*extentSize:]
		length, flags := binary.NativeEndian.Uint64(extent[16:]), binary.NativeEndian.Uint32(extent[40:])
		if flags&flagShared != 0 {
			shared += length
		} else {
			unshared += length
		}
	}
	return shared, unshared
}
