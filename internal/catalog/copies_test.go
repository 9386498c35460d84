package catalog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func newCopy(t *testing.T, c catalog.Catalog, destination string) *catalog.Copy {
	t.Helper()
	record := catalog.NewCopy(newBackup(firstID, "main", began), destination, began)
	pgtest.Check(t, c.SaveCopy(record))
	return record
}

func TestCopies(t *testing.T) {
	c := newCatalog(t)
	if copies, err := c.Copies(); len(copies) != 0 || err != nil {
		t.Errorf("at first: %v, %v", copies, err)
	}
	first, second := newCopy(t, c, "/srv/a"), newCopy(t, c, "/srv/b")
	if first.Name == second.Name || first.Backup != firstID || first.Cluster != "main" {
		t.Errorf("%+v and %+v", first, second)
	}
	first.Links, first.Clones = []string{"/srv/link"}, []snap.Clone{{}}
	first.Before = &catalog.Owner{UID: 1, GID: 2, Mode: 0o750}
	pgtest.Check(t, c.SaveCopy(first))
	if found, err := c.FindCopy("/srv/a"); err != nil || !reflect.DeepEqual(found, first) {
		t.Errorf("found %+v, %v, want %+v", found, err, first)
	}
	if copies, err := c.Copies(); err != nil || len(copies) != 2 {
		t.Errorf("copies %v, %v", copies, err)
	}
	assertPrivate(t, c)
	pgtest.Check(t, c.RemoveCopy(first))
	pgtest.Check(t, c.RemoveCopy(first)) // twice is allowed
	for _, destination := range []string{"/srv/a", "/srv", "/srv/b/", "", "/srv/b/.."} {
		if _, err := c.FindCopy(destination); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
			t.Errorf("finding %q: %v", destination, err)
		}
	}
	if found, err := c.FindCopy("/srv/b"); err != nil || found.Name != second.Name {
		t.Errorf("the other: %+v, %v", found, err)
	}
	// They are no backups, and no cluster.
	if got := listed(t, c, ""); got != "" {
		t.Errorf("listed: %s", got)
	}
}

// A record that can't be read is an error: it may be that of what is asked for.
func TestUnreadableCopy(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":        {"", "unexpected end"},
		"garbage":      {"garbage", "invalid character"},
		"newer schema": {fmt.Sprintf(`{"schema": %d, "name": "NAME"}`, snap.Schema+1), "schema"},
		"no schema":    {`{"name": "NAME"}`, "schema 0"},
		"other name":   {`{"schema": 1, "name": "copy-20261120-080910-ffff"}`, "out of its place"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCatalog(t)
			record := newCopy(t, c, "/srv/a")
			path := filepath.Join(c.Root(), ".copies", record.Name+".json")
			pgtest.Check(t, os.WriteFile(path, []byte(strings.ReplaceAll(test.text, "NAME", record.Name)), 0o600))
			_, err := c.Copies()
			if fault.KindOf(err) != fault.Storage || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "%!") {
				t.Errorf("error is %v, want %q", err, test.want)
			}
			if _, err := c.FindCopy("/srv/a"); fault.KindOf(err) != fault.Storage {
				t.Errorf("finding it: %v", err)
			}
		})
	}
}

// What is no record is let alone.
func TestOtherFilesAmongCopies(t *testing.T) {
	c := newCatalog(t)
	record := newCopy(t, c, "/srv/a")
	for _, name := range []string{"README", ".copy-20261120-080910-0001.json123", "copy-1.json", "../x.json", "copy-20261120-080910-0001.json.bak"} {
		pgtest.Check(t, os.WriteFile(filepath.Join(c.Root(), ".copies", name), []byte("garbage"), 0o600))
	}
	if copies, err := c.Copies(); err != nil || len(copies) != 1 || copies[0].Name != record.Name {
		t.Errorf("copies %v, %v", copies, err)
	}
}
