package catalog_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func assertBusy(t *testing.T, what string, err error) {
	t.Helper()
	if fault.KindOf(err) != fault.Busy || fault.HintOf(err) == "" {
		t.Errorf("%s: %v (%s)", what, err, fault.HintOf(err))
	}
}

// TestClusterLock: one take of a cluster at a time, in whatever process, for as
// long as that lives.
func TestClusterLock(t *testing.T) {
	c := newCatalog(t)
	other := another(t, "cluster", c)
	_, err := c.LockCluster("main")
	assertBusy(t, "with another process", err)
	if !strings.Contains(err.Error(), "cluster main") {
		t.Errorf("%v does not name the cluster", err)
	}
	unlock, err := c.LockCluster("main2") // another cluster's is free
	pgtest.Check(t, err)
	unlock()
	other.kill()
	unlock, err = c.LockCluster("main")
	pgtest.Check(t, err)
	_, err = c.LockCluster("main")
	assertBusy(t, "twice in one process", err)
	unlock()
	unlock, err = c.LockCluster("main")
	pgtest.Check(t, err)
	unlock()
	assertPrivate(t, c)
}

// TestKilledTaker: a backup reads as being taken while its taker lives, and as
// interrupted when that was killed; then it can be deleted.
func TestKilledTaker(t *testing.T) {
	c := newCatalog(t)
	taker := another(t, "taking", c)
	if got := listed(t, c, "main"); got != firstID+" taking" {
		t.Errorf("while the taker lives: %s", got)
	}
	backup, err := c.Find("main", firstID, func([]*snap.Backup) {})
	pgtest.Check(t, err)
	_, err = c.Open(backup)
	assertBusy(t, "deleting it while it is taken", err)
	_, err = c.LockShared(backup)
	assertBusy(t, "restoring it while it is taken", err)
	taker.kill()
	if got := listed(t, c, "main"); got != firstID+" interrupted" {
		t.Errorf("when the taker was killed: %s", got)
	}
	if data, err := os.ReadFile(filepath.Join(c.Root(), "main", firstID, "backup.json")); err != nil || !strings.Contains(string(data), `"status": "taking"`) {
		t.Errorf("reading changed the record: %s (%v)", data, err)
	}
	record, err := c.Open(backup)
	pgtest.Check(t, err)
	defer record.Close()
	pgtest.Check(t, record.Remove())
	if got := files(t, c); got != "main" {
		t.Errorf("left behind: %s", got)
	}
}

func TestKilledDeleter(t *testing.T) {
	c := newCatalog(t)
	keep(t, c, firstID, "main", snap.Complete, began)
	deleter := another(t, "deleting", c)
	if got := listed(t, c, "main"); got != firstID+" deleting" {
		t.Errorf("while the deleter lives: %s", got)
	}
	if found, err := c.Find("main", "latest", func([]*snap.Backup) {}); err == nil {
		t.Errorf("the latest is %+v", found)
	}
	deleter.kill()
	if got := listed(t, c, "main"); got != firstID+" interrupted" {
		t.Errorf("when the deleter was killed: %s", got)
	}
}

// TestRestorer: what is being restored is not deleted, but can be restored twice.
func TestRestorer(t *testing.T) {
	c := newCatalog(t)
	backup := keep(t, c, firstID, "main", snap.Complete, began)
	restorer := another(t, "restoring", c)
	if got := listed(t, c, "main"); got != firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
	_, err := c.Open(backup)
	assertBusy(t, "deleting it", err)
	unlock, err := c.LockShared(backup)
	pgtest.Check(t, err)
	restorer.kill()
	_, err = c.Open(backup)
	assertBusy(t, "deleting it while the second restores", err)
	unlock()
	record, err := c.Open(backup)
	pgtest.Check(t, err)
	record.Close()
}

// TestSweep: what an interrupted Begin or Remove left is not listed, and the next
// Begin of the cluster takes it away, and nothing else.
func TestSweep(t *testing.T) {
	c := newCatalog(t)
	keep(t, c, firstID, "main", snap.Complete, began)
	keep(t, c, firstID, "other", snap.Complete, began)
	left := []string{"main/.20261120-080910-0b0b.new", "main/.20261120-080910-0c0c.removed"}
	stays := []string{"main/.hidden", "main/20261120-080910-0d0d.new", "other/.20261120-080910-0e0e.new"}
	for _, dir := range append(left, stays...) {
		pgtest.Check(t, os.MkdirAll(filepath.Join(c.Root(), dir, "wal"), 0o700))
		data, err := os.ReadFile(filepath.Join(c.Root(), "main", firstID, "backup.json"))
		pgtest.Check(t, err)
		pgtest.Check(t, os.WriteFile(filepath.Join(c.Root(), dir, "backup.json"), data, 0o600))
	}
	if got := listed(t, c, ""); got != firstID+" complete, "+firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
	keep(t, c, "20261120-080910-0f0f", "main", snap.Complete, began)
	there := files(t, c) + " "
	for _, dir := range left {
		if strings.Contains(there, dir+" ") {
			t.Errorf("%s was not swept", dir)
		}
	}
	for _, dir := range stays {
		if !strings.Contains(there, dir+" ") {
			t.Errorf("%s was swept", dir)
		}
	}
}

// The same id twice is an error, and the first backup stays whole.
func TestBeginTwice(t *testing.T) {
	c := newCatalog(t)
	keep(t, c, firstID, "main", snap.Complete, began)
	before := files(t, c)
	_, err := c.Begin(newBackup(firstID, "main", began))
	if fault.KindOf(err) != fault.Storage || strings.Count(err.Error(), "catalog "+c.Root()) != 1 {
		t.Errorf("error is %v", err)
	}
	if after := files(t, c); after != before {
		t.Errorf("there were %s, and are %s", before, after)
	}
	if got := listed(t, c, ""); got != firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
}

// TestFinishing lists while backups are finished: one that is complete is never
// taken for interrupted.
func TestFinishing(t *testing.T) {
	c := newCatalog(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			backup := newBackup(fmt.Sprintf("20261120-080910-%04x", i), "main", began)
			record, err := c.Begin(backup)
			if err != nil {
				t.Error(err)
				return
			}
			backup.Status = snap.Complete
			if err := record.Save(backup); err != nil {
				t.Error(err)
			}
			record.Close()
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if got := listed(t, c, "main"); strings.Contains(got, string(snap.Interrupted)) || strings.Contains(got, "unreadable") {
			t.Errorf("listed: %s", got)
			<-done
			return
		}
	}
}

// TestManyDeleters removes each backup from several sides: it is removed once, and
// no late one brings a part of it back.
func TestManyDeleters(t *testing.T) {
	c := newCatalog(t)
	for i := range 30 {
		backup := keep(t, c, fmt.Sprintf("20261120-080910-%04x", i), "main", snap.Complete, began)
		var deleters sync.WaitGroup
		for range 4 {
			deleters.Go(func() {
				if err := remove(c, *backup); err != nil && fault.KindOf(err) != fault.Busy && fault.KindOf(err) != fault.NotFound {
					t.Error(err)
				}
			})
		}
		deleters.Wait()
		if got := files(t, c); got != "main" {
			if err := remove(c, *backup); got != "main/"+backup.ID || err != nil {
				t.Fatalf("there are %s (%v)", got, err)
			}
		}
	}
}

func remove(c catalog.Catalog, backup snap.Backup) error {
	record, err := c.Open(&backup)
	if err != nil {
		return err
	}
	defer record.Close()
	backup.Status = snap.Deleting
	return errors.Join(record.Save(&backup), record.Remove())
}
