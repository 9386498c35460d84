package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestKilled: pgsnap is killed at instants all over a take. The server drops the
// backup by itself, what is left can be seen and deleted, and the next take works.
func TestKilled(t *testing.T) {
	for _, driver := range []string{"reflink", "btrfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pgtest.NeedServer(t, "14"), driver)
			tool := newTool(t, s.lab, s.cluster.DSN(), driver)
			pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "plain"})
			whole := timeOf(func() { tool.must(nil, "delete", tool.take().ID) })
			interrupted := 0
			for range 12 {
				interrupted += killedTake(t, s, tool, rand.N(whole))
			}
			t.Logf("%d of 12 takes were killed with a record behind, a take is %v", interrupted, whole)
			backup := tool.take()
			copy := tool.restore(backup.ID, filepath.Join(s.copies, "after"))
			balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, copy.Instance))
			pgtest.Check(t, err)
			if !balances.Agree() {
				t.Errorf("balances after it all: %+v", balances)
			}
			tool.release(copy)
			tool.must(nil, "delete", backup.ID)
			checkNothingLeft(t, s, tool)
			checkOriginal(t, s)
		})
	}
}

func timeOf(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// killedTake kills a take after a while and deletes what it left; it tells how
// many interrupted backups there were.
func killedTake(t *testing.T, s site, tool *tool, after time.Duration) int {
	t.Helper()
	cmd := tool.command("take")
	pgtest.Check(t, cmd.Start())
	time.Sleep(after)
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
	pgtest.Eventually(t, 20*time.Second, func() error {
		left, err := s.cluster.Query(t.Context(), `SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsnap')
			+ (SELECT count(*) FROM pg_replication_slots)`)
		if err == nil && left != "0" {
			err = errors.New(left + " sessions and slots are left")
		}
		return err
	})
	interrupted := 0
	for _, backup := range tool.list() {
		switch backup.Status {
		case snap.Interrupted:
			interrupted++
			tool.fails(4, []string{"interrupted"}, "restore", backup.ID, "--to", s.lab.Path("never"))
		case snap.Complete:
		default:
			t.Errorf("backup %s is %s", backup.ID, backup.Status)
		}
		tool.must(nil, "delete", backup.ID)
	}
	return interrupted
}

// TestKilledExclusive: an exclusive backup outlives the process. The next one
// says what is in the way and what to do.
func TestKilledExclusive(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "12"), pgtest.Options{DataDir: lab.Path("site", "data")})
	tool := newTool(t, lab, cluster.DSN(), "reflink")
	pgtest.Exec(t, cluster, "SELECT pg_start_backup('somebody''s own', true, true)")
	tool.fails(6, []string{"in progress or was left behind", "somebody's own", "SELECT pg_stop_backup()"}, "take", "--mode", "exclusive")
	backup := tool.take() // non-exclusive, beside it
	pgtest.Exec(t, cluster, "SELECT pg_stop_backup()")
	copy := tool.restore(backup.ID, lab.Path("copy"))
	if label := pgtest.Query(t, copy.Instance, "SELECT pg_is_in_recovery()::text"); label != "false" {
		t.Error("the copy is still in recovery")
	}
	pgtest.Check(t, os.WriteFile(filepath.Join(cluster.DataDir, "backup_label"), []byte("x\n"), 0o600))
	tool.fails(6, []string{"cannot be read", "rename the file"}, "take", "--mode", "exclusive")
	pgtest.Check(t, os.Remove(filepath.Join(cluster.DataDir, "backup_label")))
	tool.take("--mode", "exclusive")
}

// TestInterrupted: SIGINT and SIGTERM at any instant leave nothing, in either
// mode; the record says that it failed.
func TestInterrupted(t *testing.T) {
	for _, mode := range []string{"exclusive", "non-exclusive"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pgtest.NeedServer(t, "13"), "reflink")
			tool := newTool(t, s.lab, s.cluster.DSN(), "reflink")
			pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "plain"})
			whole := timeOf(func() { tool.must(nil, "delete", tool.take().ID) })
			for round := range 8 {
				cmd := tool.command("take", "--mode", mode)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				pgtest.Check(t, cmd.Start())
				time.Sleep(20*time.Millisecond + rand.N(whole))
				_ = cmd.Process.Signal([]os.Signal{os.Interrupt, syscall.SIGTERM}[round%2])
				err := cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 130 && code != 0 && !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
					t.Errorf("exit %d (%v): %s", code, err, stderr.String())
				}
				for _, backup := range tool.list() {
					if backup.Status != snap.Complete && backup.Status != snap.Failed {
						t.Errorf("backup %s is %s: %s", backup.ID, backup.Status, backup.Error)
					}
					tool.must(nil, "delete", backup.ID)
				}
				if left := pgtest.Query(t, s.cluster, "SELECT pg_is_in_backup()::text"); left != "false" {
					t.Error("the server is left in backup mode")
				}
			}
			checkNothingLeft(t, s, tool)
			checkOriginal(t, s)
		})
	}
}

// TestTwoAtOnce: of several takes of one cluster one goes on and the others are
// told; different clusters do not meet.
func TestTwoAtOnce(t *testing.T) {
	s := newSite(t, pgtest.NeedServer(t, "18"), "reflink")
	tool := newTool(t, s.lab, s.cluster.DSN(), "reflink")
	pgtest.Load(t, s.cluster, pgtest.BenchOptions{})
	codes := make([]int, 4)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() {
			cmd := tool.command("take")
			_ = cmd.Run()
			codes[i] = cmd.ProcessState.ExitCode()
		})
	}
	all.Wait()
	done, busy := 0, 0
	for _, code := range codes {
		switch code {
		case 0:
			done++
		case 6:
			busy++
		}
	}
	if done == 0 || done+busy != len(codes) {
		t.Errorf("exit codes %v", codes)
	}
	backups := tool.list()
	if len(backups) != done {
		t.Errorf("%d takes succeeded, %d backups are listed", done, len(backups))
	}
	for _, backup := range backups {
		if backup.Status != snap.Complete {
			t.Error(fmt.Errorf("backup %s is %s", backup.ID, backup.Status))
		}
	}
}
