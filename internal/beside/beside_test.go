package beside_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgsnap/internal/beside"
	"pgsnap/internal/snap"
)

// volumeAt is a volume beside which its snapshots are kept.
func volumeAt(root, place string) snap.Volume {
	return snap.Volume{Driver: "test", ID: root, Root: root, Place: place}
}

// directories makes snapshots that are directories with two files in them.
var directories = beside.Maker{
	Cut: func(_ snap.Volume, content string) error {
		return errors.Join(os.Mkdir(content, 0o700), os.WriteFile(filepath.Join(content, "a"), nil, 0o600), os.WriteFile(filepath.Join(content, "b"), nil, 0o600))
	},
	Remove: os.RemoveAll, Gradual: true,
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeSet(t *testing.T, name string, volumes ...snap.Volume) []snap.Snapshot {
	t.Helper()
	snapshots, err := directories.Snapshot(t.Context(), name, volumes, snap.Metadata{"cluster": "main"})
	check(t, err)
	return snapshots
}

func TestOutside(t *testing.T) {
	at := func(paths ...string) (list []snap.Path) {
		for _, path := range paths {
			list = append(list, snap.Path{Path: path})
		}
		return list
	}
	for _, c := range []struct {
		root  string
		paths []snap.Path
		want  string
	}{
		{"/pg/data", at("/pg/data"), "/pg"},
		{"/pg/data/base", at("/pg/data", "/pg/data/base"), "/pg"},
		{"/pg/data/pg_wal", at("/pg/data"), "/pg"},
		{"/pg/space", at("/pg/data", "/pg/space"), "/pg"},
		{"/pg/space/one", at("/pg/space/one", "/pg/space", "/pg"), "/"},
		{"/pg", at("/pg/data"), "/"}, // a subvolume with the data directory in it
		{"/pg/data2", at("/pg/data", "/pg/data2"), "/pg"},
	} {
		if got := beside.Outside(c.root, c.paths); got != c.want {
			t.Errorf("snapshots of %s are kept in %s, not %s", c.root, got, c.want)
		}
	}
}

// TestContent has names that need escaping, that look like others' or that are
// too long: each has its own place, whose name, with more behind it, is legal.
func TestContent(t *testing.T) {
	long := strings.Repeat("ä", 120)
	roots := []string{
		"/p/data", "/p/data.json", "/p/data.json.json", "/p/data%2Ejson", "/p/data%2ejson", "/p/.json", "/p/a/b", "/p/a%2Fb", "/p/a b", "/p/a+b", "/p/a,b",
		"/p/" + long + "/data", "/p/" + long + "/data2", "/p/" + long, "/p/x" + long, "/p", "/elsewhere/data", "/elsewhere%2Fdata",
		"/p/" + strings.Repeat("l", 179), "/p/" + strings.Repeat("l", 180), "/p/" + strings.Repeat("l", 181), "/p/" + strings.Repeat("l", 181) + ".json",
		"/p/" + strings.Repeat("deep/", 200), "/p/" + strings.Repeat("deep/", 201), "/p/\n", "/p/..data", "/p/\xff",
	}
	seen := map[string]string{}
	for _, root := range roots {
		content := beside.Of(volumeAt(root, "/p")).Content("pgsnap-1")
		if dir := filepath.Dir(content); dir != "/p/.pgsnap/pgsnap-1" {
			t.Errorf("%s is in %s", root, dir)
		}
		for _, path := range []string{content, content + ".json"} {
			if other, taken := seen[path]; taken {
				t.Errorf("%q and %q both have %s", root, other, path)
			}
			seen[path] = root
		}
		const behind = len(",copy-20260102-030405-0a1b") + len(".json")
		if base := filepath.Base(content); len(base)+behind > 255 {
			t.Errorf("%q has a name of %d bytes", root, len(base))
		}
	}
}

// TestSnapshotKeepsOthers fails in a set of which one was there before: that one
// stays, as it was.
func TestSnapshotKeepsOthers(t *testing.T) {
	place := t.TempDir()
	volumes := []snap.Volume{volumeAt(place+"/a", place), volumeAt(place+"/b", place), volumeAt(place+"/c", place)}
	before := makeSet(t, "pgsnap-1", volumes[0])[0]
	failing := directories
	failing.Cut = func(volume snap.Volume, content string) error {
		if volume.ID == volumes[2].ID {
			return errors.Join(directories.Cut(volume, content), fs.ErrInvalid)
		}
		return directories.Cut(volume, content)
	}
	if _, err := failing.Snapshot(t.Context(), "pgsnap-1", volumes, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("the error is %v", err)
	}
	listed, err := beside.List(volumes)
	check(t, err)
	if len(listed) != 1 || listed[0].ID != before.ID || !listed[0].CutAt.Equal(before.CutAt) || !listed[0].Complete {
		t.Errorf("after the failure there are %+v", listed)
	}
}

// TestSnapshotAfterFailedRemoval has a half-made snapshot that can't be removed.
func TestSnapshotAfterFailedRemoval(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/a", place)
	check(t, beside.Of(volume).Begin("pgsnap-1", nil))
	stuck := directories
	stuck.Remove = func(string) error { return fs.ErrPermission }
	stuck.Cut = func(snap.Volume, string) error { t.Error("it was cut all the same"); return nil }
	if _, err := stuck.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the error is %v", err)
	}
}

func TestSnapshotCancelled(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/a", place)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := directories.Snapshot(ctx, "pgsnap-1", []snap.Volume{volume}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	empty(t, place)
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("in %s there are %v, %v", dir, entries, err)
	}
}

// TestDeleteInterrupted removes half of a content: from then on it is not
// complete, and the next Delete removes the rest.
func TestDeleteInterrupted(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/a", place)
	makeSet(t, "pgsnap-1", volume)
	interrupted := directories
	interrupted.Remove = func(content string) error {
		return errors.Join(os.Remove(filepath.Join(content, "a")), fs.ErrClosed)
	}
	if err := interrupted.Delete(volume, "pgsnap-1"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("the error is %v", err)
	}
	found, err := beside.Of(volume).Find("pgsnap-1")
	if err != nil || found.Complete {
		t.Errorf("half removed, it is %+v, %v", found, err)
	}
	check(t, directories.Delete(volume, "pgsnap-1"))
	empty(t, place)
}

// TestDeleteRefused leaves a snapshot whose removal is all or nothing complete.
func TestDeleteRefused(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/a", place)
	makeSet(t, "pgsnap-1", volume)
	refusing := directories
	refusing.Gradual = false
	refusing.Remove = func(string) error { return fs.ErrPermission }
	if err := refusing.Delete(volume, "pgsnap-1"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the error is %v", err)
	}
	if found, err := beside.Of(volume).Find("pgsnap-1"); err != nil || !found.Complete {
		t.Errorf("after the refusal it is %+v, %v", found, err)
	}
}

// TestConcurrentPlaces makes and removes snapshots in one place from many sides:
// the directories above them come and go.
func TestConcurrentPlaces(t *testing.T) {
	place := t.TempDir()
	var wait sync.WaitGroup
	for side := range 4 {
		volume := volumeAt(fmt.Sprint(place, "/", side), place)
		wait.Go(func() {
			for round := range 100 {
				name := fmt.Sprint("pgsnap-", side, "-", round)
				_, err := directories.Snapshot(t.Context(), name, []snap.Volume{volume}, nil)
				if err = errors.Join(err, directories.Delete(volume, name)); err != nil {
					t.Errorf("side %d, round %d: %v", side, round, err)
					return
				}
			}
		})
	}
	wait.Wait()
	empty(t, place)
}

// TestFolderIsNoDirectory says what is in the way.
func TestFolderIsNoDirectory(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/a", place)
	folder := filepath.Join(place, beside.Folder)
	check(t, os.WriteFile(folder, []byte("mine"), 0o600))
	if _, err := directories.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("the error is %v", err)
	}
	if text, err := os.ReadFile(folder); err != nil || string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestListSeveralPlaces(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	volumes := []snap.Volume{volumeAt(one+"/a", one), volumeAt(two+"/a", two), volumeAt(one+"/none", one)}
	makeSet(t, "pgsnap-1", volumes[:2]...)
	makeSet(t, "pgsnap-2", volumes[1])
	listed, err := beside.List(volumes)
	check(t, err)
	var found []string
	for _, snapshot := range listed {
		found = append(found, snapshot.Name+" of "+snapshot.VolumeID)
	}
	slices.Sort(found)
	want := []string{"pgsnap-1 of " + one + "/a", "pgsnap-1 of " + two + "/a", "pgsnap-2 of " + two + "/a"}
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("there are %q, not %q", found, want)
	}
}
