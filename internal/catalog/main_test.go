package catalog_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/catalog"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// Tests run this program again, as the other process that holds a lock or is
// killed in the middle of its work.
const (
	roleVariable = "PGSNAP_TEST_ROLE"
	rootVariable = "PGSNAP_TEST_ROOT"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(role, catalog.At(os.Getenv(rootVariable))); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	time.Sleep(time.Minute) // until it is killed
}

var began = time.Date(2026, 11, 20, 8, 9, 10, 0, time.UTC)

const firstID = "20261120-080910-00aa"

// play does what a process was doing when it was killed.
func play(role string, c catalog.Catalog) error {
	switch role {
	case "cluster":
		_, err := c.LockCluster("main")
		return err
	case "taking":
		_, err := c.Begin(newBackup(firstID, "main", began))
		return err
	case "deleting":
		backup, err := c.Find("main", firstID, func([]*snap.Backup) {})
		if err != nil {
			return err
		}
		record, err := c.Open(backup)
		if err != nil {
			return err
		}
		backup.Status = snap.Deleting
		return record.Save(backup)
	case "restoring":
		backup, err := c.Find("main", firstID, func([]*snap.Backup) {})
		if err == nil {
			_, err = c.LockShared(backup)
		}
		return err
	}
	return fmt.Errorf("no role %q", role)
}

// process is another pgsnap at work on a catalog.
type process struct{ cmd *exec.Cmd }

// another starts one, and returns when it has done what its role says.
func another(t *testing.T, role string, c catalog.Catalog) process {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, rootVariable+"="+c.Root())
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	pgtest.Check(t, err)
	pgtest.Check(t, cmd.Start())
	p := process{cmd}
	t.Cleanup(p.kill)
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the other process said %q (%v)", line, err)
	}
	return p
}

// kill ends it as kill -9 does.
func (p process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func newCatalog(t *testing.T) catalog.Catalog {
	t.Helper()
	return catalog.At(filepath.Join(t.TempDir(), "catalog"))
}

func newBackup(id, cluster string, at time.Time) *snap.Backup {
	return &snap.Backup{
		Schema: snap.Schema, ID: id, Cluster: cluster, Status: snap.Taking, Label: "label of " + id,
		StartedAt: at, SnapshotName: snap.SnapshotNameOf(id), Seconds: map[snap.Phase]float64{},
	}
}

// keep makes a backup that is not being worked on.
func keep(t *testing.T, c catalog.Catalog, id, cluster string, status snap.Status, at time.Time) *snap.Backup {
	t.Helper()
	backup := newBackup(id, cluster, at)
	record, err := c.Begin(backup)
	pgtest.Check(t, err)
	defer record.Close()
	backup.Status = status
	pgtest.Check(t, record.Save(backup))
	return backup
}

// listed are the backups of a list, as "ID status", and its problems.
func listed(t *testing.T, c catalog.Catalog, cluster string) string {
	t.Helper()
	backups, problems, err := c.List(cluster)
	pgtest.Check(t, err)
	var all []string
	for _, backup := range backups {
		all = append(all, backup.ID+" "+string(backup.Status))
	}
	for _, problem := range problems {
		all = append(all, filepath.Base(problem.Path)+" unreadable")
	}
	return strings.Join(all, ", ")
}

// files are all files and directories of a catalog but locks.
func files(t *testing.T, c catalog.Catalog) string {
	t.Helper()
	var all []string
	pgtest.Check(t, filepath.WalkDir(c.Root(), func(path string, _ os.DirEntry, err error) error {
		if err == nil && !strings.HasSuffix(path, ".lock") && path != c.Root() {
			relative, _ := filepath.Rel(c.Root(), path)
			all = append(all, relative)
		}
		return err
	}))
	return strings.Join(all, " ")
}
