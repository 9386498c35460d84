package beside_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgsnap/internal/beside"
	"pgsnap/internal/snap"
)

// TestMark pins what lies on disk: whoever finds it without pgsnap can read it.
func TestMark(t *testing.T) {
	place := t.TempDir()
	volume := volumeAt(place+"/data", place)
	before := time.Now()
	snapshot := makeSet(t, "pgsnap-1", volume)[0]
	set := snap.Set{Snapshots: []snap.Snapshot{snapshot}}
	check(t, beside.Commit([]snap.Volume{volume}, set, snap.Metadata{"label": "START\nLABEL: \"x\"\n", "latin": "caf\xe9"}))

	if want := filepath.Join(place, ".pgsnap/pgsnap-1/data"); snapshot.ID != want || snapshot.Directory != want {
		t.Errorf("the snapshot is %s, to be read at %s, not at %s", snapshot.ID, snapshot.Directory, want)
	}
	text, err := os.ReadFile(filepath.Join(place, ".pgsnap/pgsnap-1/data.json"))
	check(t, err)
	var mark map[string]any
	check(t, json.Unmarshal(text, &mark))
	cutAt, err := time.Parse(time.RFC3339Nano, mark["cut_at"].(string))
	if err != nil || !cutAt.Equal(snapshot.CutAt) || cutAt.Before(before) || cutAt.After(time.Now()) {
		t.Errorf("it was cut at %v, says the mark, and at %v, says the snapshot; %v", mark["cut_at"], snapshot.CutAt, err)
	}
	metadata := mark["metadata"].(map[string]any)
	latin, _ := metadata["latin"].(map[string]any)
	if mark["driver"] != "test" || mark["volume"] != volume.ID || mark["name"] != "pgsnap-1" || mark["complete"] != true ||
		metadata["cluster"] != "main" || metadata["label"] != "START\nLABEL: \"x\"\n" || latin["base64"] != "Y2Fm6Q==" {
		t.Errorf("the mark is %s", text)
	}
	for path, want := range map[string]fs.FileMode{".pgsnap": 0o700, ".pgsnap/pgsnap-1": 0o700, ".pgsnap/pgsnap-1/data.json": 0o600} {
		if info, err := os.Stat(filepath.Join(place, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
}

// TestMarkStates are the marks and contents that there can be.
func TestMarkStates(t *testing.T) {
	for what, c := range map[string]struct {
		change            func(content string) error
		complete, foreign bool
		absent            bool
	}{
		"as it was made":     {change: func(string) error { return nil }, complete: true},
		"no content":         {change: os.RemoveAll},
		"a file for content": {change: func(c string) error { return errors.Join(os.RemoveAll(c), os.WriteFile(c, nil, 0o600)) }},
		"a link for content": {change: func(c string) error { return errors.Join(os.RemoveAll(c), os.Symlink("/etc", c)) }},
		"a torn mark":        {change: func(c string) error { return os.Truncate(c+".json", 40) }},
		"an empty mark":      {change: func(c string) error { return os.Truncate(c+".json", 0) }},
		"no metadata": {change: func(c string) error {
			return edit(c+".json", func(mark map[string]any) { mark["metadata"] = nil })
		}, complete: true},
		"no mark": {change: func(c string) error { return os.Remove(c + ".json") }, absent: true},
		"neither": {change: func(c string) error { return errors.Join(os.Remove(c+".json"), os.RemoveAll(c)) }, absent: true},
		"another's mark": {change: func(c string) error {
			return edit(c+".json", func(mark map[string]any) { mark["volume"] = "/another" })
		}, foreign: true},
		"another driver's mark": {change: func(c string) error {
			return edit(c+".json", func(mark map[string]any) { mark["driver"] = "another" })
		}, foreign: true},
		"another name in the mark": {change: func(c string) error {
			return edit(c+".json", func(mark map[string]any) { mark["name"] = "pgsnap-2" })
		}, foreign: true},
	} {
		t.Run(what, func(t *testing.T) {
			place := t.TempDir()
			volume := volumeAt(place+"/data", place)
			snapshot := makeSet(t, "pgsnap-1", volume)[0]
			check(t, c.change(snapshot.ID))

			found, err := beside.Of(volume).Find("pgsnap-1")
			switch {
			case c.absent && !errors.Is(err, snap.ErrNoSnapshot), c.foreign && (err == nil || errors.Is(err, snap.ErrNoSnapshot)):
				t.Errorf("found is %+v, the error %v", found, err)
			case !c.absent && !c.foreign && (err != nil || found.Complete != c.complete || found.Name != "pgsnap-1" || found.VolumeID != volume.ID):
				t.Errorf("found is %+v, the error %v", found, err)
			}
			listed, err := beside.List([]snap.Volume{volume})
			check(t, err)
			if wanted := !c.absent && !c.foreign; len(listed) > 1 || len(listed) == 1 != wanted || wanted && listed[0].Complete != c.complete {
				t.Errorf("listed are %+v", listed)
			}

			set := snap.Set{Snapshots: []snap.Snapshot{snapshot}}
			err = beside.Commit([]snap.Volume{volume}, set, snap.Metadata{"label": "x"})
			if (err == nil) != c.complete || !c.foreign && !c.complete && !errors.Is(err, snap.ErrNoSnapshot) {
				t.Errorf("the error of Commit is %v", err)
			}

			_, statErr := os.Lstat(snapshot.ID)
			unmarked := c.absent && statErr == nil
			if err := directories.Delete(volume, "pgsnap-1"); (err == nil) == (c.foreign || unmarked) {
				t.Errorf("the error of Delete is %v", err)
			}
			if c.foreign || unmarked {
				if _, err := os.Lstat(filepath.Join(snapshot.ID, "b")); err != nil {
					t.Errorf("what is not ours is gone: %v", err)
				}
				return
			}
			empty(t, place)
		})
	}
}

// edit changes a mark.
func edit(path string, change func(map[string]any)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var mark map[string]any
	if err := json.Unmarshal(data, &mark); err != nil {
		return err
	}
	change(mark)
	if data, err = json.Marshal(mark); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
