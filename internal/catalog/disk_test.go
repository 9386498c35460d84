package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func assertStorage(t *testing.T, what string, err error, hint string) {
	t.Helper()
	if fault.KindOf(err) != fault.Storage || !strings.Contains(fault.HintOf(err), hint) || strings.Count(err.Error(), "catalog /") != 1 {
		t.Errorf("%s: %v (%s)", what, err, fault.HintOf(err))
	}
}

// assertNothingWorks tries everything that writes.
func assertNothingWorks(t *testing.T, c catalog.Catalog, backup *snap.Backup, hint string) {
	t.Helper()
	_, err := c.Begin(newBackup("20261120-080910-00bb", "main", began))
	assertStorage(t, "begin", err, hint)
	_, err = c.Begin(newBackup("20261120-080910-00bb", "fresh", began))
	assertStorage(t, "begin of a new cluster", err, hint)
	record, err := c.Open(backup)
	pgtest.Check(t, err)
	defer record.Close()
	large := make([]byte, 1<<20)
	assertStorage(t, "save a file", record.SaveFile("backup_label", large), hint)
	assertStorage(t, "save a file in a directory", record.SaveFile("config/etc/file", large), hint)
	backup.Label = string(large)
	assertStorage(t, "save", record.Save(backup), hint)
	assertStorage(t, "save a copy", c.SaveCopy(catalog.NewCopy(backup, strings.Repeat("/d", 1<<20), began)), hint)
	if got := listed(t, c, ""); got != firstID+" complete" {
		t.Errorf("listed: %s", got)
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	disk := pgtest.Mount(t, pgtest.New(t), "ext4", 8)
	c := catalog.At(filepath.Join(disk.Dir, "catalog"))
	backup := keep(t, c, firstID, "main", snap.Complete, began)
	filler, err := os.Create(filepath.Join(disk.Dir, "filler"))
	pgtest.Check(t, err)
	defer filler.Close()
	for chunk := make([]byte, 1024); err == nil; {
		_, err = filler.Write(chunk)
	}
	pgtest.Check(t, filler.Sync())
	assertNothingWorks(t, c, backup, "free space")
	// To delete, as the hint says, takes a few kilobytes.
	info, err := filler.Stat()
	pgtest.Check(t, err)
	pgtest.Check(t, filler.Truncate(info.Size()-64<<10))
	pgtest.Check(t, remove(c, *keptAs(t, c)))
	if got := listed(t, c, ""); got != "" {
		t.Errorf("listed: %s", got)
	}
}

// keptAs is the backup as it is on disk.
func keptAs(t *testing.T, c catalog.Catalog) *snap.Backup {
	t.Helper()
	backup, err := c.Find("main", firstID, func([]*snap.Backup) {})
	pgtest.Check(t, err)
	return backup
}

func TestReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	disk := pgtest.Mount(t, pgtest.New(t), "ext4", 8)
	c := catalog.At(filepath.Join(disk.Dir, "catalog"))
	backup := keep(t, c, firstID, "main", snap.Complete, began)
	pgtest.Check(t, unix.Mount("", disk.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	assertNothingWorks(t, c, backup, "directory that pgsnap may write")
	_, err := c.LockCluster("fresh")
	assertStorage(t, "lock", err, "PGSNAP_CATALOG")
	record, err := c.Open(backup)
	pgtest.Check(t, err)
	if err := record.Remove(); fault.KindOf(err) != fault.Storage {
		t.Errorf("remove: %v", err)
	}
	record.Close()
	unlock, err := c.LockShared(backup) // to be restored from
	pgtest.Check(t, err)
	unlock()
}

// Something else is where the catalog should be.
func TestNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	pgtest.Check(t, os.WriteFile(path, nil, 0o600))
	for _, root := range []string{path, path + "/below"} {
		c := catalog.At(root)
		_, _, err := c.List("")
		assertStorage(t, "list", err, "PGSNAP_CATALOG")
		_, err = c.LockCluster("main")
		assertStorage(t, "lock", err, "PGSNAP_CATALOG")
		_, err = c.Begin(newBackup(firstID, "main", began))
		assertStorage(t, "begin", err, "PGSNAP_CATALOG")
		_, err = c.Copies()
		assertStorage(t, "copies", err, "PGSNAP_CATALOG")
		assertStorage(t, "save a copy", c.SaveCopy(catalog.NewCopy(newBackup(firstID, "main", began), "/srv/a", began)), "PGSNAP_CATALOG")
	}
}
