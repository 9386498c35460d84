package zfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func dataAt(path string) snap.Path { return snap.Path{Role: snap.DataDirectory, Path: path} }

func spaceAt(path string, oid uint32) snap.Path {
	return snap.Path{Role: snap.Tablespace, Path: path, OID: oid}
}

func newName() string { return snap.SnapshotNameOf(snap.NewID(time.Now())) }

// resolve is Resolve, which must succeed.
func resolve(t *testing.T, paths ...snap.Path) []snap.Volume {
	t.Helper()
	volumes, err := Driver{}.Resolve(t.Context(), paths)
	pgtest.Check(t, err)
	return volumes
}

// take makes and commits a set.
func take(t *testing.T, volumes []snap.Volume, metadata snap.Metadata) snap.Set {
	t.Helper()
	set, err := Driver{}.Snapshot(t.Context(), newName(), volumes, metadata)
	pgtest.Check(t, err)
	pgtest.Check(t, Driver{}.Commit(t.Context(), volumes, set, metadata))
	return set
}

func remove(t *testing.T, volumes []snap.Volume, set snap.Set) {
	t.Helper()
	for index, snapshot := range set.Snapshots {
		pgtest.Check(t, Driver{}.Delete(t.Context(), volumes[index], snapshot.Name))
	}
}

// fails makes sure that an error says each of the texts.
func fails(t *testing.T, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("there is no error, which should say %q", says)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
}

// TestOneInstant writes to three datasets of a pool in turn, without flushing: no
// set shows a later one ahead of an earlier one.
func TestOneInstant(t *testing.T) {
	p := newPool(t, "instant", "zfs")
	var paths []snap.Path
	var files []*os.File
	for index, name := range []string{"data", "wal dir", "space"} {
		root := p.lab.Path("instant", name)
		p.dataset(name, root)
		paths = append(paths, spaceAt(root, uint32(index)))
		file, err := os.Create(filepath.Join(root, "number"))
		pgtest.Check(t, err)
		defer file.Close()
		files = append(files, file)
	}
	paths[0].Role = snap.DataDirectory
	write := func(number uint64) {
		for _, file := range files {
			if _, err := file.WriteAt(binary.BigEndian.AppendUint64(nil, number), 0); err != nil {
				t.Error(err)
			}
		}
	}
	write(0)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan uint64)
	go func() {
		number := uint64(1)
		for ; ctx.Err() == nil; number++ {
			write(number)
			time.Sleep(time.Millisecond / 10)
		}
		ended <- number
	}()
	volumes := resolve(t, paths...)
	seen := map[int64]bool{}
	const rounds = 8
	for range rounds {
		set, err := Driver{}.Snapshot(t.Context(), newName(), volumes, nil)
		pgtest.Check(t, err)
		if !set.Atomic {
			t.Error("a set in one pool is not of one instant")
		}
		var numbers []int64
		for _, snapshot := range set.Snapshots {
			data, err := os.ReadFile(filepath.Join(snapshot.Directory, "number"))
			pgtest.Check(t, err)
			numbers = append(numbers, int64(binary.BigEndian.Uint64(data)))
		}
		seen[numbers[0]] = true
		if numbers[0] < numbers[1] || numbers[1] < numbers[2] || numbers[0]-numbers[2] > 1 {
			t.Errorf("the datasets were cut at writes %v", numbers)
		}
		remove(t, volumes, set)
	}
	stop()
	t.Logf("%d writes, of which %d snapshots saw %d", <-ended, rounds, len(seen))
	if len(seen) < rounds/2 {
		t.Errorf("too few different instants: %v", seen)
	}
}

// TestTwoPools cuts pools one after another, the one with the data directory last,
// and leaves nothing of a set of which one pool fails.
func TestTwoPools(t *testing.T) {
	needLab(t)
	lab := pgtest.New(t)
	first, second := newPoolIn(t, lab, "first", "zfs", 1<<30), newPoolIn(t, lab, "second", "zfs", 1<<30)
	first.dataset("wal", lab.Path("wal"))
	first.dataset("data", lab.Path("data"))
	second.dataset("space", lab.Path("space"))
	volumes := resolve(t, spaceAt(lab.Path("wal"), 1), spaceAt(lab.Path("space"), 2), dataAt(lab.Path("data")))
	set := take(t, volumes, snap.Metadata{"id": "x"})
	if set.Atomic || len(set.Snapshots) != 3 {
		t.Errorf("the set is %+v", set)
	}
	if space := set.Snapshots[1].CutAt; !space.Before(set.Snapshots[0].CutAt) || !set.Snapshots[0].CutAt.Equal(set.Snapshots[2].CutAt) {
		t.Errorf("cut at %+v", set.Snapshots)
	}
	again, err := Driver{}.Snapshot(t.Context(), set.Snapshots[0].Name, volumes, nil)
	pgtest.Check(t, err)
	if again.Atomic || again.Snapshots[0] != set.Snapshots[0] {
		t.Errorf("again: %+v", again)
	}
	remove(t, volumes, set)

	name := newName()
	program(t, "zfs", "snapshot", "first/wal@"+name)
	_, err = Driver{}.Snapshot(t.Context(), name, volumes, nil)
	fails(t, err, "already exists", "first/wal@"+name)
	if left := program(t, "zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-r", "first", "second"); left != "first/wal@"+name+"\n" {
		t.Errorf("left: %s", left)
	}

	// A pool that is away is not a pool without snapshots.
	set = take(t, volumes, nil)
	program(t, "zpool", "export", "second")
	_, err = Driver{}.List(t.Context(), volumes)
	fails(t, err, "second", "not imported")
	fails(t, Driver{}.Delete(t.Context(), volumes[1], set.Snapshots[1].Name), "second", "not imported")
	program(t, "zpool", "import", "-o", "readonly=on", "-d", lab.Dir(), "second")
	_, err = Driver{}.Resolve(t.Context(), []snap.Path{spaceAt(lab.Path("space"), 2)})
	fails(t, err, "second", "read-only")
	_, err = Driver{}.Snapshot(t.Context(), newName(), volumes[1:2], nil)
	fails(t, err, "read-only")
	fails(t, Driver{}.Delete(t.Context(), volumes[1], set.Snapshots[1].Name), "read-only")
	program(t, "zpool", "export", "second")
	program(t, "zpool", "import", "-d", lab.Dir(), "second")
	if all, err := (Driver{}).List(t.Context(), volumes); err != nil || len(all) != 3 {
		t.Errorf("after the import: %+v, %v", all, err)
	}
	remove(t, volumes, set)
}

// TestMetadata has values around the limit of a property, and one past all limits.
func TestMetadata(t *testing.T) {
	p := newPool(t, "meta", "zfs")
	p.dataset("data", p.lab.Path("meta"))
	volumes := resolve(t, dataAt(p.lab.Path("meta")))
	metadata := snap.Metadata{"dash": "-", "none": "none", "equals": "=a=b,c", "spaces": "  ", "mark": binaryMark + "1:QQ=="}
	for _, length := range []int{longestValue - 1, longestValue, longestValue + 1, 100_000} {
		metadata[fmt.Sprintf("plain-%d", length)] = strings.Repeat("x", length)
		metadata[fmt.Sprintf("bytes-%d", length)] = strings.Repeat("\x00\xff\n", length/3)
	}
	set := take(t, volumes, metadata)
	is := p.metadata(t, volumes[0], set.Snapshots[0].Name)
	for key, value := range metadata {
		if is[key] != value {
			t.Errorf("%s is %d bytes, %.40q, not %d bytes", key, len(is[key]), is[key], len(value))
		}
	}
	remove(t, volumes, set)
	_, err := Driver{}.Snapshot(t.Context(), newName(), volumes, snap.Metadata{"label": strings.Repeat("\n", 1<<20)})
	fails(t, err, "label", "too much")
}
