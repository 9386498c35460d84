package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/wal"
)

// TestRoundTrip takes and restores a cluster of every version, in each mode that
// it has, with each driver: under load, with two tablespaces and pg_wal behind a
// link, beside the running original.
func TestRoundTrip(t *testing.T) {
	pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
		for _, driver := range []string{"reflink", "btrfs"} {
			t.Run(driver, func(t *testing.T) {
				t.Parallel()
				roundTrip(t, server, driver)
			})
		}
	})
}

// site is a cluster with everything that coverage has to find.
type site struct {
	lab     *pgtest.Lab
	cluster *pgtest.Cluster
	// directories are all that the cluster lies in.
	directories []string
	// copies is where restored copies go.
	copies string
}

// newSite makes a cluster on storage for the driver.
func newSite(t *testing.T, server pgtest.Server, driver string) site {
	t.Helper()
	lab := pgtest.New(t)
	s := site{lab: lab, copies: lab.Path("copies")}
	volume := func(name string) string { return lab.Path("site", name) }
	switch {
	case driver == "btrfs":
		fs := pgtest.Mount(t, lab, "btrfs", 3072)
		volume = func(name string) string {
			path, err := lab.Subvolume(t.Context(), fs, name)
			pgtest.Check(t, err)
			return path
		}
		if server.Major%2 == 0 { // otherwise copies are on another file system, and mounted
			s.copies = filepath.Join(fs.Dir, "copies")
		}
	case server.Major%2 == 0: // otherwise files are copied in full
		fs := pgtest.Mount(t, lab, "xfs", 3072)
		volume = func(name string) string { return filepath.Join(fs.Dir, name) }
		s.copies = filepath.Join(fs.Dir, "copies")
	}
	data, waldir := volume("data"), volume("wal dir")
	s.cluster = pgtest.Start(t, lab, server, pgtest.Options{DataDir: data, WALDir: waldir, Fsync: true, Checksums: true})
	plain, odd := volume("plain"), volume(`odd \ "name"`)
	pgtest.Check(t, s.cluster.CreateTablespace(t.Context(), "plain", plain))
	pgtest.Check(t, s.cluster.CreateTablespace(t.Context(), "odd", odd))
	s.directories = []string{data, waldir, plain, odd}
	return s
}

func roundTrip(t *testing.T, server pgtest.Server, driver string) {
	s := newSite(t, server, driver)
	tool := newTool(t, s.lab, s.cluster.DSN(), driver)
	pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "plain", IndexTablespace: "odd"})
	ledger := pgtest.WriteLedger(t, s.cluster, 0)
	modes := []pgctl.Mode{pgctl.NonExclusive}
	if server.Major < 15 {
		modes = append(modes, pgctl.Exclusive)
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			tool.t = t
			time.Sleep(300 * time.Millisecond) // some history for each
			committed := sampleCommits(t, s.cluster, ledger)
			backup := tool.take("--mode", string(mode), "--label", "round trip "+string(mode))
			if backup.Mode != mode || len(backup.Volumes) != 4 || backup.Timeline != 1 {
				t.Errorf("mode %s, volumes %v, timeline %d", backup.Mode, backup.Volumes, backup.Timeline)
			}
			upTo := committed(backup.StopLSN)
			copy := tool.restore(backup.ID, filepath.Join(s.copies, string(mode)))
			checkCopy(t, s, copy, upTo)
			tool.release(copy)
			tool.must(nil, "delete", backup.ID)
		})
	}
	tool.t = t
	checkNothingLeft(t, s, tool)
	checkOriginal(t, s)
}

// sampleCommits watches the ledger and the log position together until the
// returned function is called, which tells up to which row all were committed
// before a position.
func sampleCommits(t *testing.T, cluster *pgtest.Cluster, ledger *pgtest.Ledger) func(wal.LSN) int64 {
	t.Helper()
	type sample struct {
		row int64
		at  wal.LSN
	}
	var samples []sample
	conn := pgtest.Connect(t, cluster)
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			row := ledger.Acknowledged() // before the position, so its commit is before it too
			var text string
			if err := conn.QueryRow(context.Background(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
				t.Error(err)
				return
			}
			at, err := wal.ParseLSN(text)
			if err != nil {
				t.Error(err)
				return
			}
			samples = append(samples, sample{row, at})
			time.Sleep(time.Millisecond)
		}
	})
	return func(position wal.LSN) int64 {
		stop()
		done.Wait()
		row := int64(0)
		for _, sample := range samples {
			if sample.at <= position {
				row = max(row, sample.row)
			}
		}
		if row == 0 {
			t.Errorf("no row of the ledger was committed before %s", position)
		}
		return row
	}
}

func checkCopy(t *testing.T, s site, copy restored, upTo int64) {
	t.Helper()
	conn := pgtest.Connect(t, copy.Instance)
	balances, err := pgtest.ReadBalances(t.Context(), conn)
	pgtest.Check(t, err)
	if !balances.Agree() || balances.Accounts == 0 {
		t.Errorf("balances of the copy: %+v", balances)
	}
	missing, err := pgtest.LedgerMissing(t.Context(), conn, upTo)
	pgtest.Check(t, err)
	if len(missing) > 0 {
		t.Errorf("of the %d rows committed before the stop, %d are missing: %v", upTo, len(missing), missing[:1])
	}
	if timeline := pgtest.Query(t, copy.Instance, "SELECT timeline_id::text FROM pg_control_checkpoint()"); timeline != "2" || copy.Timeline != 2 {
		t.Errorf("the copy is on timeline %s, and pgsnap says %d; want 2", timeline, copy.Timeline)
	}
	if data := filepath.Join(copy.Destination, "data"); copy.DataDirectory != data || pgtest.Query(t, copy.Instance, "SHOW data_directory") != data {
		t.Errorf("the data directory is %s", copy.DataDirectory)
	}
	for _, tablespace := range copy.Tablespaces {
		location := pgtest.Query(t, copy.Instance, "SELECT pg_tablespace_location($1::int)", int(tablespace.OID))
		if location != tablespace.New || !strings.HasPrefix(location, copy.Destination+"/") {
			t.Errorf("tablespace %s is at %s, and pgsnap says %s", tablespace.Name, location, tablespace.New)
		}
	}
	if len(copy.Tablespaces) != 2 {
		t.Errorf("tablespaces of the copy: %v", copy.Tablespaces)
	}
	// Writing, so that files of the tablespaces and the log are open for it.
	pgtest.Exec(t, copy.Instance, "CREATE TABLE later TABLESPACE odd AS SELECT generate_series(1, 10000) AS n")
	pgtest.Exec(t, copy.Instance, "CHECKPOINT")
	pgtest.Query(t, copy.Instance, "SELECT count(*)::text FROM pgbench_accounts")
	copy.touchesNothingIn(t, s.directories...)
}

// checkOriginal restarts the original, which nothing may have changed.
func checkOriginal(t *testing.T, s site) {
	t.Helper()
	pgtest.Check(t, s.cluster.Restart(t.Context(), pgtest.Fast))
	balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, s.cluster))
	pgtest.Check(t, err)
	if !balances.Agree() || balances.Accounts == 0 {
		t.Errorf("balances of the original: %+v", balances)
	}
	if backups := pgtest.Query(t, s.cluster, "SELECT count(*)::text FROM pg_replication_slots"); backups != "0" {
		t.Errorf("%s replication slots are left", backups)
	}
	if _, err := os.Lstat(filepath.Join(s.cluster.DataDir, "backup_label")); err == nil {
		t.Error("a backup_label is left in the data directory")
	}
}

// checkNothingLeft looks for snapshots, copies and records after everything was
// released and deleted.
func checkNothingLeft(t *testing.T, s site, tool *tool) {
	t.Helper()
	if backups := tool.list(); len(backups) > 0 {
		t.Errorf("%d backups are left", len(backups))
	}
	if entries, _ := os.ReadDir(s.copies); len(entries) > 0 {
		t.Errorf("left in %s: %v", s.copies, entries)
	}
	err := filepath.WalkDir(s.lab.Dir(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), ".pgsnap") {
			return fmt.Errorf("left behind: %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
