package drivertest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// content is a directory tree: what a path below it is, by that path.
type content map[string]string

// contentOf reads a tree. It leaves out times, which no driver promises to keep.
func contentOf(t *testing.T, dir string) content {
	t.Helper()
	return treeOf(t, dir, func(string) bool { return false })
}

// treeOf is contentOf without some directories and what is below them.
func treeOf(t *testing.T, dir string, leaveOut func(path string) bool) content {
	t.Helper()
	tree := content{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if leaveOut(path) {
			return fs.SkipDir
		}
		relative, err := filepath.Rel(dir, path)
		if err == nil {
			tree[relative], err = describe(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v, owner %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s, to %q", text, target), err
	case info.Mode().IsRegular():
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		sum := sha256.New()
		size, err := io.Copy(sum, file)
		return fmt.Sprintf("%s, %d bytes, SHA-256 %.6x", text, size, sum.Sum(nil)), err
	}
	return text, nil
}

// diff says in what another tree differs from this one.
func (c content) diff(is content) string {
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(c)) {
		switch {
		case is[path] == "":
			lines = append(lines, fmt.Sprintf("%q is missing: %s", path, c[path]))
		case is[path] != c[path]:
			lines = append(lines, fmt.Sprintf("%q was %s, is %s", path, c[path], is[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(is)) {
		if c[path] == "" {
			lines = append(lines, fmt.Sprintf("%q was not there: %s", path, is[path]))
		}
	}
	return strings.Join(lines, "\n")
}

// lines is the tree as an inventory.
func (c content) lines() []string {
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(c)) {
		lines = append(lines, fmt.Sprintf("%q: %s", path, c[path]))
	}
	return lines
}

func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(data) // never fails
	return data
}

const (
	tableFile  = "base/5/1259"
	sparseFile = "base/5/2619"
	sparseSize = 6 << 20
)

// fill writes a tree with all that a cluster's directory may hold, and some that
// only an administrator could have put there.
func fill(t *testing.T, root string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{
		"base": 0o700, "base/5": 0o750, "empty": 0o700, "shared": 0o770 | fs.ModeSetgid,
		"odd \n\\\"'%41": 0o755,
	} {
		check(os.MkdirAll(filepath.Join(root, path), 0o700))
		check(os.Chmod(filepath.Join(root, path), mode)) // whatever the umask is
	}
	for path, data := range map[string][]byte{
		"PG_VERSION": []byte("18\n"), tableFile: noise(300_000), "base/5/2600": nil, "base/5/1249": noise(8192),
		"shared/script": []byte("#!/bin/sh\n"), "odd \n\\\"'%41/-f": []byte("x"), "not utf-8 \xff\xfe": []byte("y"),
		".hidden": []byte("z"), strings.Repeat("n", 255): nil,
	} {
		check(os.WriteFile(filepath.Join(root, path), data, 0o600))
	}
	check(os.Chmod(filepath.Join(root, "shared/script"), 0o755))
	check(os.Chmod(filepath.Join(root, "PG_VERSION"), 0o440))
	for path, target := range map[string]string{
		"link to a file": "PG_VERSION", "link to nothing": "no such\nfile", "link to elsewhere": "/etc", "base/link to a directory": "..",
	} {
		check(os.Symlink(target, filepath.Join(root, path)))
	}
	sparse, err := os.OpenFile(filepath.Join(root, sparseFile), os.O_WRONLY|os.O_CREATE, 0o600)
	check(err)
	check(sparse.Truncate(sparseSize))
	for _, offset := range []int64{0, sparseSize / 2, sparseSize - 8192} {
		_, err := sparse.WriteAt(bytes.Repeat([]byte{1}, 8192), offset)
		check(err)
	}
	check(sparse.Close())
	if os.Geteuid() == 0 {
		check(os.Chown(filepath.Join(root, tableFile), 12345, 54321))
		check(os.Chown(filepath.Join(root, "empty"), 12345, 54321))
		check(os.Lchown(filepath.Join(root, "link to a file"), 12345, 54321))
	}
}

// alter changes the tree that fill wrote, in all the ways in which one can.
func alter(t *testing.T, root string) {
	t.Helper()
	at := func(path string) string { return filepath.Join(root, path) }
	table, err := os.OpenFile(at(tableFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	_, err = table.WriteAt([]byte("changed in place"), 100_000)
	for _, do := range []func() error{
		func() error { return err },
		func() error { return table.Truncate(200_000) },
		func() error { return os.WriteFile(at("base/5/2600"), noise(9000), 0o600) },
		func() error { return os.Remove(at("base/5/1249")) },
		func() error { return os.WriteFile(at("base/5/1249_fsm"), noise(100), 0o600) },
		func() error { return os.Mkdir(at("base/16384"), 0o700) },
		func() error { return os.Remove(at("empty")) },
		func() error { return os.Rename(at("shared"), at("empty")) },
		func() error { return os.Chmod(at("base"), 0o755) },
		func() error { return os.Remove(at("link to a file")) },
		func() error { return os.Symlink("elsewhere", at("link to a file")) },
		func() error { return os.Truncate(at(sparseFile), sparseSize/2) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
}
