package catalog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func TestNothing(t *testing.T) {
	c := newCatalog(t)
	if got := listed(t, c, "") + listed(t, c, "main"); got != "" {
		t.Errorf("listed: %s", got)
	}
	for _, id := range []string{"latest", firstID, "", "x"} {
		if _, err := c.Find("", id, func([]*snap.Backup) {}); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" || !strings.Contains(err.Error(), c.Root()) {
			t.Errorf("finding %q: %v (%s)", id, err, fault.HintOf(err))
		}
	}
	if _, err := os.Stat(c.Root()); err == nil {
		t.Error("reading made the catalog")
	}
}

func TestBackup(t *testing.T) {
	c := newCatalog(t)
	backup := newBackup(firstID, "main", began)
	record, err := c.Begin(backup)
	pgtest.Check(t, err)
	if got := listed(t, c, "main"); got != firstID+" taking" {
		t.Errorf("while it is taken: %s", got)
	}
	pgtest.Check(t, record.SaveFile("backup_label", []byte("the label")))
	pgtest.Check(t, record.SaveFile("config/etc/postgresql/15/main/pg_hba.conf", []byte("rules")))
	dir, err := record.WALDirectory()
	pgtest.Check(t, err)
	again, err := record.WALDirectory()
	if err != nil || again != dir || dir != c.WALDirectory(backup) {
		t.Errorf("WAL belongs into %q, %q and %q (%v)", dir, again, c.WALDirectory(backup), err)
	}
	pgtest.Check(t, os.WriteFile(filepath.Join(dir, "000000010000000000000002.zst"), nil, 0o600))
	stopped := began.Add(time.Minute)
	backup.Status, backup.StartLSN, backup.StopLSN, backup.StoppedAt = snap.Complete, 0x2000028, 1<<32, &stopped
	pgtest.Check(t, record.Save(backup))
	record.Close()

	found, err := c.Find("main", firstID, func([]*snap.Backup) {})
	if err != nil || !reflect.DeepEqual(found, backup) {
		t.Errorf("found %+v, %v, want %+v", found, err, backup)
	}
	if data, err := c.File(backup, "backup_label"); err != nil || string(data) != "the label" {
		t.Errorf("backup_label is %q, %v", data, err)
	}
	if data, err := c.File(backup, "config/etc/postgresql/15/main/pg_hba.conf"); err != nil || string(data) != "rules" {
		t.Errorf("pg_hba.conf is %q, %v", data, err)
	}
	if _, err := c.File(backup, "tablespace_map"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no tablespace_map: %v", err)
	}
	assertPrivate(t, c)

	record, err = c.Open(found)
	pgtest.Check(t, err)
	pgtest.Check(t, record.DiscardFiles())
	if got := files(t, c); got != "main main/"+firstID+" main/"+firstID+"/backup.json" {
		t.Errorf("without its files there are %s", got)
	}
	pgtest.Check(t, record.Remove())
	record.Close()
	if got := files(t, c); got != "main" {
		t.Errorf("after its removal there are %s", got)
	}
	if _, err := c.Open(found); fault.KindOf(err) != fault.NotFound {
		t.Errorf("opening what was removed: %v", err)
	}
	if _, err := c.LockShared(found); fault.KindOf(err) != fault.NotFound {
		t.Errorf("locking what was removed: %v", err)
	}
}

// assertPrivate: labels, WAL and settings are nobody else's business.
func assertPrivate(t *testing.T, c catalog.Catalog) {
	t.Helper()
	pgtest.Check(t, filepath.WalkDir(c.Root(), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}))
}

func TestListAndFind(t *testing.T) {
	c := newCatalog(t)
	const (
		oldest  = "20261118-080910-0001"
		older   = "20261119-080910-0002"
		newest  = "20261120-080910-0003"
		foreign = "20261121-080910-0004"
	)
	keep(t, c, newest, "main", snap.Failed, began)
	keep(t, c, older, "main", snap.Complete, began.Add(-24*time.Hour))
	keep(t, c, oldest, "main", snap.Complete, began.Add(-48*time.Hour))
	if found, err := c.Find("", "latest", func([]*snap.Backup) {}); err != nil || found.ID != older {
		t.Errorf("the latest of the only cluster is %+v, %v", found, err)
	}
	keep(t, c, foreign, "other", snap.Complete, began.Add(24*time.Hour))
	for cluster, want := range map[string]string{
		"main":  oldest + " complete, " + older + " complete, " + newest + " failed",
		"other": foreign + " complete",
		"none":  "",
		"":      oldest + " complete, " + older + " complete, " + newest + " failed, " + foreign + " complete",
	} {
		if got := listed(t, c, cluster); got != want {
			t.Errorf("of cluster %q: %s, want %s", cluster, got, want)
		}
	}
	for name, test := range map[string]struct {
		cluster, id, want string
		kind              fault.Kind
	}{
		"latest complete": {"main", "latest", older, 0},
		"latest of other": {"other", "latest", foreign, 0},
		"latest of none":  {"none", "latest", "", fault.NotFound},
		"latest of all":   {"", "latest", "", fault.Usage},
		"by id":           {"main", newest, newest, 0},
		"in any cluster":  {"", foreign, foreign, 0},
		"in another":      {"main", foreign, "", fault.NotFound},
		"a beginning":     {"main", "20261120", "", fault.NotFound},
		"unknown":         {"main", "20261120-080910-ffff", "", fault.NotFound},
	} {
		found, err := c.Find(test.cluster, test.id, func([]*snap.Backup) {})
		if fault.KindOf(err) != test.kind || (err == nil) != (test.want != "") || err == nil && found.ID != test.want {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}

// What lies in a catalog that is no backup is let alone.
func TestOtherFiles(t *testing.T) {
	c := newCatalog(t)
	keep(t, c, firstID, "main", snap.Complete, began)
	for _, path := range []string{"README", "main/README", ".git/config", "main/20261120/backup.json", "main/20261120-080910-00AA/backup.json",
		"main/x" + firstID + "/backup.json", "-rf/" + firstID + "/backup.json", "lost+found/x", "main/20261120-080910-0bad"} {
		path = filepath.Join(c.Root(), path)
		pgtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		pgtest.Check(t, os.WriteFile(path, []byte("{}"), 0o600))
	}
	// A directory that lost its record is none either.
	pgtest.Check(t, os.MkdirAll(filepath.Join(c.Root(), "main", "20261120-080910-dead", "wal"), 0o700))
	if got := listed(t, c, ""); got != firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
}

// change rewrites a record.
func change(t *testing.T, c catalog.Catalog, id string, how func(record map[string]any)) {
	t.Helper()
	path := filepath.Join(c.Root(), "main", id, "backup.json")
	data, err := os.ReadFile(path)
	pgtest.Check(t, err)
	var record map[string]any
	pgtest.Check(t, json.Unmarshal(data, &record))
	how(record)
	data, err = json.Marshal(record)
	pgtest.Check(t, err)
	pgtest.Check(t, os.WriteFile(path, data, 0o600))
}

// A record that can't be read is told, and the others are still there.
func TestUnreadable(t *testing.T) {
	const other = "20261120-080910-00bb"
	write := func(text string) func(*testing.T, catalog.Catalog) {
		return func(t *testing.T, c catalog.Catalog) {
			pgtest.Check(t, os.WriteFile(filepath.Join(c.Root(), "main", firstID, "backup.json"), []byte(text), 0o600))
		}
	}
	set := func(key string, value any) func(*testing.T, catalog.Catalog) {
		return func(t *testing.T, c catalog.Catalog) {
			change(t, c, firstID, func(record map[string]any) { record[key] = value })
		}
	}
	for name, test := range map[string]struct {
		damage func(*testing.T, catalog.Catalog)
		want   string
	}{
		"empty":              {write(""), "unexpected end"},
		"cut":                {write(`{"schema": 1, "id": "2026`), "unexpected end"},
		"garbage":            {write("\x00\x01\x02"), "invalid character"},
		"null":               {write("null"), "schema 0"},
		"a list":             {write("[]"), "cannot unmarshal"},
		"two documents":      {write("{}{}"), "invalid character"},
		"newer schema":       {set("schema", snap.Schema+1), fmt.Sprintf("schema %d, and this pgsnap reads up to %d", snap.Schema+1, snap.Schema)},
		"schema 0":           {set("schema", 0), "schema 0"},
		"negative schema":    {set("schema", -1), "schema -1"},
		"wrong type":         {set("label", 5), "label"},
		"wrong position":     {set("start_lsn", "nowhere"), "nowhere"},
		"other id":           {set("id", other), "out of its place"},
		"other cluster":      {set("cluster", "other"), "out of its place"},
		"other snapshots":    {set("snapshot_name", "pgsnap-"+other), "out of its place"},
		"somebody's volumes": {set("snapshot_name", "home"), "out of its place"},
		"a directory": {func(t *testing.T, c catalog.Catalog) {
			path := filepath.Join(c.Root(), "main", firstID, "backup.json")
			pgtest.Check(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
		}, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCatalog(t)
			keep(t, c, firstID, "main", snap.Complete, began)
			keep(t, c, other, "main", snap.Complete, began)
			test.damage(t, c)
			if got := listed(t, c, ""); got != other+" complete, "+firstID+" unreadable" {
				t.Errorf("listed: %s", got)
			}
			_, problems, _ := c.List("main")
			if len(problems) != 1 || !strings.Contains(problems[0].Err.Error(), test.want) || !strings.Contains(problems[0].Err.Error(), "backup.json") {
				t.Errorf("problems %v, want %q", problems, test.want)
			}
			if _, err := c.Find("main", firstID, func([]*snap.Backup) {}); fault.KindOf(err) != fault.Storage || !strings.Contains(err.Error(), firstID) {
				t.Errorf("finding it: %v", err)
			}
			if found, err := c.Find("main", "latest", func([]*snap.Backup) {}); err != nil || found.ID != other {
				t.Errorf("finding the latest: %+v, %v", found, err)
			}
		})
	}
}

// Later versions may add fields.
func TestUnknownField(t *testing.T) {
	c := newCatalog(t)
	keep(t, c, firstID, "main", snap.Complete, began)
	change(t, c, firstID, func(record map[string]any) { record["colour"] = "blue" })
	if got := listed(t, c, ""); got != firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
}

// Names that lead out of the catalog lead nowhere.
func TestTraversal(t *testing.T) {
	base := t.TempDir()
	c := catalog.At(filepath.Join(base, "one"))
	backup := keep(t, c, firstID, "main", snap.Complete, began)
	outside := catalog.At(filepath.Join(base, "two"))
	keep(t, outside, firstID, "main", snap.Complete, began)
	for _, cluster := range []string{"../two/main", "..", "../two", "main/../../two/main", "/etc", ".", "main/" + firstID, "a/b", "-rf", ".copies", "a\x00b"} {
		if catalog.ValidCluster(cluster) {
			t.Errorf("%q is a cluster's name", cluster)
		}
		if _, err := c.Find(cluster, firstID, func([]*snap.Backup) {}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("found in cluster %q: %v", cluster, err)
		}
		if backups, problems, err := c.List(cluster); len(backups)+len(problems) > 0 || err != nil {
			t.Errorf("in cluster %q: %v %v %v", cluster, backups, problems, err)
		}
		if _, err := c.LockCluster(cluster); err == nil {
			t.Errorf("cluster %q was locked", cluster)
		}
		if _, err := c.Begin(newBackup("20261120-080910-00bb", cluster, began)); err == nil {
			t.Errorf("a backup of cluster %q was begun", cluster)
		}
	}
	for _, id := range []string{"../main/" + firstID, "../../two/main/" + firstID, "..", ".", "", "/", firstID + "/", firstID + "/../" + firstID, "x"} {
		if _, err := c.Find("main", id, func([]*snap.Backup) {}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("found %q: %v", id, err)
		}
		if _, err := c.Begin(newBackup(id, "main", began)); err == nil {
			t.Errorf("backup %q was begun", id)
		}
	}
	record, err := c.Open(backup)
	pgtest.Check(t, err)
	defer record.Close()
	for _, name := range []string{"../escaped", "/escaped", "..", "", "config/../../escaped", "wal/../../../escaped"} {
		if err := record.SaveFile(name, nil); err == nil {
			t.Errorf("saved %q", name)
		}
		if _, err := c.File(backup, name); err == nil {
			t.Errorf("read %q", name)
		}
	}
	if got, want := files(t, catalog.At(base)), "one one/main one/main/"+firstID+" one/main/"+firstID+"/backup.json "+
		"two two/main two/main/"+firstID+" two/main/"+firstID+"/backup.json"; got != want {
		t.Errorf("there are %s\nwant %s", got, want)
	}
}
