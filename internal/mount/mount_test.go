package mount_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
)

func TestBelow(t *testing.T) {
	var table mount.Table
	for _, point := range []string{"/", "/a/b/c", "/a", "/a/b", "/ab", "/a/d", "/a/b/c"} {
		table = append(table, &mountinfo.Info{ID: len(table), Mountpoint: point})
	}
	for dir, want := range map[string]string{
		"/a":     "3 /a/b, 5 /a/d, 1 /a/b/c, 6 /a/b/c", // /ab is beside it; the upper of two comes last
		"/a/b":   "1 /a/b/c, 6 /a/b/c",
		"/a/b/c": "",
		"/none":  "",
		"/":      "2 /a, 4 /ab, 3 /a/b, 5 /a/d, 1 /a/b/c, 6 /a/b/c",
	} {
		t.Run(dir, func(t *testing.T) {
			var got []string
			for _, info := range table.Below(dir) {
				got = append(got, fmt.Sprint(info.ID, " ", info.Mountpoint))
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("below %s: %q, want %q", dir, got, want)
			}
		})
	}
}

func TestOf(t *testing.T) {
	lab := needMounts(t)
	disk := mountDisk(t, lab, "disk")
	within := mkdir(t, disk, "dir", "deeper")
	file := filepath.Join(within, "file")
	pgtest.Check(t, os.WriteFile(file, nil, 0o600))
	bound := bind(t, filepath.Join(disk, "dir"), lab.Path("bound"))
	upper := mkdir(t, disk, "upper")
	pgtest.Check(t, mount.Mount(t.Context(), "none", upper, "tmpfs", nil))
	pgtest.Check(t, mount.Mount(t.Context(), "none", upper, "tmpfs", nil)) // over the first
	table, err := mount.Read()
	pgtest.Check(t, err)
	for path, want := range map[string]string{
		disk:                                     disk,
		within:                                   disk,
		file:                                     disk,
		filepath.Join(bound, "deeper"):           bound, // the same directory by another way
		filepath.Join(bound, "deeper", "file"):   bound,
		bound:                                    bound,
		upper:                                    upper,
		lab.Dir():                                "",
		filepath.Join(disk, "..", "disk", "dir"): disk,
	} {
		info, err := table.Of(path)
		pgtest.Check(t, err)
		if want == "" {
			if strings.HasPrefix(info.Mountpoint, lab.Dir()) {
				t.Errorf("%s lies on %s", path, info.Mountpoint)
			}
			continue
		}
		if info.Mountpoint != want {
			t.Errorf("%s lies on %s, want %s", path, info.Mountpoint, want)
		}
	}
	// Of two mounts on one point, the one that is seen.
	var stacked []int
	for _, info := range table {
		if info.Mountpoint == upper {
			stacked = append(stacked, info.ID)
		}
	}
	if info, err := table.Of(upper); err != nil || len(stacked) != 2 || info.ID != stacked[1] {
		t.Errorf("%s lies on mount %v (%v) of %v", upper, info, err, stacked)
	}
	if _, err := table.Of(filepath.Join(disk, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing path: %v", err)
	}
}

// A bind mount and its origin are two mounts of one file system.
func TestBind(t *testing.T) {
	lab := needMounts(t)
	disk := mountDisk(t, lab, "disk")
	mkdir(t, disk, "dir")
	bound := bind(t, filepath.Join(disk, "dir"), lab.Path("bound"))
	table, err := mount.Read()
	pgtest.Check(t, err)
	origin, err := table.Of(disk)
	pgtest.Check(t, err)
	copied, err := table.Of(bound)
	pgtest.Check(t, err)
	if origin.Major != copied.Major || origin.Minor != copied.Minor || copied.Root != "/dir" {
		t.Errorf("origin %+v, bind mount %+v", origin, copied)
	}
}

// The kernel writes odd characters of a name in octal.
func TestOddNames(t *testing.T) {
	lab := needMounts(t)
	for _, name := range []string{"two words", "new\nline", "tab\t", `back\slash`, `\040`, "#hash", "-rf", "é"} {
		t.Run(name, func(t *testing.T) {
			dir := mountDisk(t, lab, filepath.Join(fmt.Sprintf("%x", name), name))
			below := mkdir(t, dir, name)
			pgtest.Check(t, mount.Mount(t.Context(), "none", below, "tmpfs", []string{"size=1m", "mode=0700"}))
			table, err := mount.Read()
			pgtest.Check(t, err)
			for _, path := range []string{dir, below} {
				if info, err := table.Of(path); err != nil || info.Mountpoint != path {
					t.Errorf("%q lies on %+v (%v)", path, info, err)
				}
			}
			if found := table.Below(dir); len(found) != 1 || found[0].Mountpoint != below {
				t.Errorf("below %q: %+v", dir, found)
			}
			pgtest.Check(t, mount.Unmount(t.Context(), below))
			pgtest.Check(t, mount.Unmount(t.Context(), dir))
			table, err = mount.Read()
			pgtest.Check(t, err)
			if slices.ContainsFunc(table, func(info *mountinfo.Info) bool { return info.Mountpoint == dir || info.Mountpoint == below }) {
				t.Errorf("%q is still mounted", dir)
			}
		})
	}
}

func TestMountOptions(t *testing.T) {
	lab := needMounts(t)
	dir := mkdir(t, lab.Dir(), "read only")
	pgtest.Check(t, mount.Mount(t.Context(), "none", dir, "tmpfs", []string{"ro", "nodev"}))
	table, err := mount.Read()
	pgtest.Check(t, err)
	info, err := table.Of(dir)
	pgtest.Check(t, err)
	options := strings.Split(info.Options, ",")
	if info.FSType != "tmpfs" || !slices.Contains(options, "ro") || !slices.Contains(options, "nodev") {
		t.Errorf("mounted as %+v", info)
	}
}

func TestMountFails(t *testing.T) {
	lab := needMounts(t)
	missing := lab.Path("missing")
	if err := mount.Mount(t.Context(), "none", missing, "tmpfs", nil); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("mounting at a missing directory: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it was made")
	}
}

func TestUnmountNothing(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"a directory": dir, "missing": filepath.Join(dir, "missing"), "below missing": filepath.Join(dir, "missing", "too")} {
		if err := mount.Unmount(t.Context(), path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Somebody who works there is an error, and what is mounted stays.
func TestUnmountInUse(t *testing.T) {
	lab := needMounts(t)
	dir := mountDisk(t, lab, "disk")
	user, err := os.Create(filepath.Join(dir, "file"))
	pgtest.Check(t, err)
	err = mount.Unmount(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("unmounting what is in use: %v", err)
	}
	pgtest.Check(t, user.Close())
	pgtest.Check(t, mount.Unmount(t.Context(), dir))
}

func needMounts(t *testing.T) *pgtest.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	return pgtest.New(t)
}

// mountDisk mounts a file system in memory at a new directory of the lab.
func mountDisk(t *testing.T, lab *pgtest.Lab, name string) string {
	t.Helper()
	dir := mkdir(t, lab.Dir(), name)
	pgtest.Check(t, mount.Mount(t.Context(), "none", dir, "tmpfs", []string{"size=1m"}))
	return dir
}

func bind(t *testing.T, from, to string) string {
	t.Helper()
	mkdir(t, to)
	pgtest.Check(t, mount.Mount(t.Context(), from, to, "none", []string{"bind"}))
	return to
}

func mkdir(t *testing.T, name ...string) string {
	t.Helper()
	dir := filepath.Join(name...)
	pgtest.Check(t, os.MkdirAll(dir, 0o755))
	return dir
}
