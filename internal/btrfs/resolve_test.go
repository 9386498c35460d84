package btrfs_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgsnap/internal/btrfs"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func data(path string) snap.Path { return snap.Path{Role: snap.DataDirectory, Path: path} }

func subvolume(t *testing.T, path ...string) string {
	t.Helper()
	root := filepath.Join(path...)
	run(t, "btrfs", "subvolume", "create", "--", root)
	return root
}

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	pgtest.Check(t, os.MkdirAll(dir, 0o700))
	return dir
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	pgtest.Check(t, os.WriteFile(filepath.Join(path...), []byte(text), 0o600))
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	pgtest.Check(t, err)
	return string(text)
}

// roles are the paths that a driver found, by their volume's root.
func roles(volumes []snap.Volume) map[string]string {
	found := map[string]string{}
	for _, volume := range volumes {
		var texts []string
		for _, path := range volume.Paths {
			texts = append(texts, string(path.Role)+" "+path.Path)
		}
		slices.Sort(texts)
		found[volume.Root] = strings.Join(texts, ", ")
	}
	return found
}

// TestNested has subvolumes below the data directory, which its snapshot leaves
// out.
func TestNested(t *testing.T) {
	_, fs := newBtrfs(t)
	top := subvolume(t, fs.Dir, "top")
	pgdata := mkdir(t, top, "pg", "data")
	want := map[string]string{top: "data " + pgdata}
	add := func(role, root string) string {
		want[root] = role + " " + root
		return root
	}
	base := add("nested", subvolume(t, pgdata, "base"))
	deep := add("nested", subvolume(t, mkdir(t, base, "5"), "deep down"))
	wal := add("wal", subvolume(t, pgdata, "pg_wal"))
	subvolume(t, pgdata, "log")          // of no use to a copy
	subvolume(t, base, "pgsql_tmp")      // nor this
	subvolume(t, top, "pg", "elsewhere") // not in the cluster
	subvolume(t, pgdata+"2")             // only looks as if it were
	for index := range 300 {             // more than the kernel tells at once
		add("nested", subvolume(t, deep, "of many "+strings.Repeat("x", index%200)+string(rune('a'+index/200))))
	}

	driver := btrfs.Driver{}
	volumes, err := driver.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	if found := roles(volumes); !maps.Equal(found, want) {
		t.Fatalf("found %v, want %v", found, want)
	}
	for _, volume := range volumes {
		if snap.IsBelow(volume.Place, pgdata) {
			t.Fatalf("%s is kept in %s, in the cluster", volume.Root, volume.Place)
		}
	}

	// One set of the first few, each with its own content and none of the others'.
	volumes = slices.DeleteFunc(volumes, func(v snap.Volume) bool { return strings.Contains(v.Root, "of many") })
	for _, root := range []string{pgdata, base, deep, wal} {
		write(t, root, root, "file")
	}
	set, err := driver.Snapshot(t.Context(), "pgsnap-nested", volumes, nil)
	pgtest.Check(t, err)
	for index, volume := range volumes {
		path := volume.Paths[0].Path
		relative, err := volume.Relative(path)
		pgtest.Check(t, err)
		content := filepath.Join(set.Snapshots[index].Directory, relative)
		if text := read(t, content, "file"); text != path {
			t.Errorf("the snapshot of %s has the content of %s", path, text)
		}
		if volume.Root != top {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(content, "base"))
		if err != nil || len(entries) > 0 {
			t.Errorf("in the place of the nested one there is not an empty directory: %v, %v", entries, err)
		}
	}
}

// TestNestedGiven has the nested subvolume among the paths already.
func TestNestedGiven(t *testing.T) {
	_, fs := newBtrfs(t)
	pgdata := subvolume(t, fs.Dir, "data")
	wal := subvolume(t, pgdata, "pg_wal")
	tablespace := subvolume(t, mkdir(t, pgdata, "spaces"), "one")
	paths := []snap.Path{
		data(pgdata), {Role: snap.WALDirectory, Path: wal}, {Role: snap.Tablespace, Path: tablespace, OID: 16384},
	}
	volumes, err := btrfs.Driver{}.Resolve(t.Context(), paths)
	pgtest.Check(t, err)
	want := map[string]string{pgdata: "data " + pgdata, wal: "wal " + wal, tablespace: "tablespace " + tablespace}
	if found := roles(volumes); !maps.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

// TestBindMount has directories that are mounted where their subvolume does not
// have them: a snapshot of it would not hold them at that path.
func TestBindMount(t *testing.T) {
	lab, fs := newBtrfs(t)
	other := pgtest.Mount(t, lab, "btrfs", 120)
	root := subvolume(t, fs.Dir, "volume")
	inside := mkdir(t, root, "inside")
	bind := func(source string, target ...string) string {
		at := mkdir(t, target...)
		run(t, "mount", "--bind", source, at)
		t.Cleanup(func() { unmount(t, at) })
		return at
	}
	for what, path := range map[string]string{
		"a directory of the same subvolume":   bind(inside, root, "same"),
		"a directory of another subvolume":    bind(inside, fs.Dir, "another"),
		"a directory of another file system":  bind(mkdir(t, other.Dir, "x"), root, "other"),
		"a directory below such a mount":      mkdir(t, root, "other", "deep", "data"),
		"a directory on no Btrfs around here": bind(inside, lab.Dir(), "plain"),
	} {
		volumes, err := btrfs.Driver{}.Resolve(t.Context(), []snap.Path{data(path)})
		if err != nil || len(volumes) > 0 {
			t.Errorf("%s is in volumes %+v, %v", what, volumes, err)
		}
	}
	whole := bind(root, fs.Dir, "whole")
	volumes, err := btrfs.Driver{}.Resolve(t.Context(), []snap.Path{data(mkdir(t, whole, "inside"))})
	pgtest.Check(t, err)
	if len(volumes) != 1 || volumes[0].Root != whole {
		t.Errorf("a directory in a whole subvolume is in volumes %+v", volumes)
	}
}

// TestProgramMissing says what to install.
func TestProgramMissing(t *testing.T) {
	_, fs := newBtrfs(t)
	pgdata := subvolume(t, fs.Dir, "data")
	t.Setenv("PATH", t.TempDir())
	_, err := btrfs.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	if err == nil || fault.KindOf(err) != fault.Storage || !strings.Contains(fault.HintOf(err), "btrfs-progs") {
		t.Errorf("without the program, the error is %v, the hint %q", err, fault.HintOf(err))
	}
}
