package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
)

// TestServers runs every server with pg_wal elsewhere and two tablespaces under load.
func TestServers(t *testing.T) {
	pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
		t.Parallel()
		lab := pgtest.New(t)
		cluster := pgtest.Start(t, lab, server, pgtest.Options{WALDir: lab.Path("the wal"), Checksums: true})
		if version := pgtest.Query(t, cluster, "SHOW server_version_num"); version[:2] != strconv.Itoa(server.Major) {
			t.Fatalf("server version %s, want major %d", version, server.Major)
		}
		if checksums := pgtest.Query(t, cluster, "SHOW data_checksums"); checksums != "on" {
			t.Errorf("data checksums are %s", checksums)
		}
		if link, err := os.Readlink(filepath.Join(cluster.DataDir, "pg_wal")); err != nil || link != cluster.WALDir {
			t.Errorf("pg_wal leads to %q (%v), want %q", link, err, cluster.WALDir)
		}
		pgtest.Check(t, cluster.CreateTablespace(t.Context(), "plain", lab.Path("plain")))
		odd := lab.Path(`a \ "space"`)
		pgtest.Check(t, cluster.CreateTablespace(t.Context(), `odd "name"`, odd))
		if got := pgtest.Query(t, cluster, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = $1", `odd "name"`); got != odd {
			t.Errorf("tablespace in %q, want %q", got, odd)
		}

		ledger := pgtest.WriteLedger(t, cluster, 0)
		bench := pgtest.Load(t, cluster, pgtest.BenchOptions{Tablespace: "plain", IndexTablespace: `odd "name"`})
		time.Sleep(time.Second)
		result, err := bench.Stop()
		pgtest.Check(t, err)
		if result.Transactions == 0 || result.TPS <= 0 {
			t.Errorf("pgbench did %+v", result)
		}
		balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, cluster))
		pgtest.Check(t, err)
		if !balances.Agree() || balances == (pgtest.Balances{}) {
			t.Errorf("balances %+v", balances)
		}

		// A crash in the middle of the ledger, and recovery.
		pgtest.Check(t, cluster.Crash(t.Context()))
		if cluster.Running() {
			t.Error("runs after a crash")
		}
		upTo := ledger.Acknowledged()
		pgtest.Check(t, cluster.Start(t.Context()))
		pgtest.Eventually(t, 10*time.Second, func() error {
			if ledger.Acknowledged() <= upTo {
				return errors.New("the ledger does not go on")
			}
			return nil
		})
		last := ledger.Stop()
		missing, err := pgtest.LedgerMissing(t.Context(), pgtest.Connect(t, cluster), last)
		pgtest.Check(t, err)
		if len(missing) > 0 {
			t.Errorf("of %d rows these are missing: %v", last, missing)
		}
		t.Logf("%.0f transactions a second, %d rows, longest wait %v", result.TPS, last, ledger.LongestWait())
		pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Fast))
		if _, err := cluster.PID(); err == nil {
			t.Error("runs after it was stopped")
		}
	})
}

// TestStandby makes a standby of every server, in one go with an archive, and a copy of the stopped primary.
func TestStandby(t *testing.T) {
	pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
		t.Parallel()
		lab := pgtest.New(t)
		primary := pgtest.Start(t, lab, server, pgtest.Options{Archive: true, WALDir: lab.Path("wal")})
		pgtest.Check(t, primary.CreateTablespace(t.Context(), "space", lab.Path("space")))
		pgtest.Exec(t, primary, "CREATE TABLE moved TABLESPACE space AS SELECT 42 AS n")
		standby := pgtest.Standby(t, lab, primary)
		if got := pgtest.Query(t, standby, "SELECT pg_is_in_recovery()"); got != "t" {
			t.Errorf("pg_is_in_recovery() is %s on the standby", got)
		}
		pgtest.Exec(t, primary, "INSERT INTO moved VALUES (1); SELECT pg_switch_wal()")
		pgtest.Eventually(t, 20*time.Second, func() error {
			sum, err := standby.Query(t.Context(), "SELECT sum(n) FROM moved")
			if err == nil && sum != "43" {
				err = fmt.Errorf("the standby's sum is %s", sum)
			}
			return err
		})
		pgtest.Eventually(t, 20*time.Second, func() error {
			files, err := os.ReadDir(primary.ArchiveDir)
			if err == nil && len(files) == 0 {
				err = errors.New("nothing is archived")
			}
			return err
		})
		if got := pgtest.Query(t, primary, "SELECT count(*) FROM pg_replication_slots WHERE NOT temporary"); got != "0" {
			t.Errorf("%s slots left on the primary", got)
		}
		pgtest.Check(t, standby.Stop(t.Context(), pgtest.Fast))
		pgtest.Check(t, primary.Stop(t.Context(), pgtest.Fast))

		twin, err := lab.CopyStopped(t.Context(), primary)
		pgtest.Check(t, err)
		pgtest.Check(t, primary.Start(t.Context()))
		pgtest.Exec(t, primary, "TRUNCATE moved")
		pgtest.Check(t, twin.Start(t.Context()))
		if got := pgtest.Query(t, twin, "SELECT sum(n) FROM moved"); got != "43" {
			t.Errorf("sum in the copy is %s", got)
		}
	})
}

func TestIdentity(t *testing.T) {
	lab := pgtest.New(t)
	server := pgtest.NeedServer(t, "15")
	id := func(o pgtest.Options) string {
		t.Helper()
		return pgtest.Query(t, pgtest.Start(t, lab, server, o), "SELECT system_identifier FROM pg_control_system()")
	}
	first, second := id(pgtest.Options{}), id(pgtest.Options{})
	fresh := id(pgtest.Options{FreshIdentity: true, WALDir: lab.Path("fresh wal")})
	if first != second || first == fresh {
		t.Errorf("system identifiers %s, %s and, fresh, %s", first, second, fresh)
	}
}

func TestTenthClusterIsQuick(t *testing.T) {
	lab := pgtest.New(t)
	server := pgtest.NeedServer(t, "18")
	_, err := lab.NewCluster(t.Context(), server, pgtest.Options{})
	pgtest.Check(t, err)
	begin := time.Now()
	cluster, err := lab.NewCluster(t.Context(), server, pgtest.Options{})
	pgtest.Check(t, err)
	made := time.Now()
	pgtest.Check(t, cluster.Start(t.Context()))
	started := time.Now()
	pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Fast))
	t.Logf("made in %v, started in %v, stopped in %v", made.Sub(begin), started.Sub(made), time.Since(started))
	if took := made.Sub(begin); took > 5*time.Second {
		t.Errorf("a second cluster took %v", took)
	}
}

// TestAttach hands a server over to who knows only where it is.
func TestAttach(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "14"), pgtest.Options{})
	instance, err := pgtest.Attach(cluster.DataDir, cluster.SocketDir, cluster.Port, "postgres")
	pgtest.Check(t, err)
	if got := pgtest.Query(t, instance, "SHOW data_directory"); got != cluster.DataDir {
		t.Errorf("attached to %s", got)
	}
	if !instance.Running() {
		t.Error("does not run")
	}
	pgtest.Check(t, instance.Stop(t.Context(), pgtest.Fast))
	if cluster.Running() {
		t.Error("runs")
	}
}

// TestCopiedPidFile has a copy with the postmaster.pid of the running original: stopping the copy must not stop the original.
func TestCopiedPidFile(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "16"), pgtest.Options{})
	dir, err := lab.Mkdir("copied")
	pgtest.Check(t, err)
	text, err := os.ReadFile(filepath.Join(cluster.DataDir, "postmaster.pid"))
	pgtest.Check(t, err)
	pgtest.Check(t, os.WriteFile(filepath.Join(dir, "postmaster.pid"), text, 0o600))
	copied, err := pgtest.Attach(dir, cluster.SocketDir, cluster.Port, "postgres")
	pgtest.Check(t, err)
	if copied.Running() {
		t.Error("the copy passes for a running server")
	}
	pgtest.Check(t, copied.Stop(t.Context(), pgtest.Immediate))
	if err := copied.Crash(t.Context()); err == nil {
		t.Error("crashed a server that does not run")
	}
	if !cluster.Running() {
		t.Error("the original was stopped")
	}
}

// TestAuthentication logs in with a password and, as root, by peer.
func TestAuthentication(t *testing.T) {
	lab := pgtest.New(t)
	server := pgtest.NeedServer(t, "18")
	withPassword := pgtest.Start(t, lab, server, pgtest.Options{Auth: "scram-sha-256", Password: `it's \ secret`, Listen: true})
	pgtest.Exec(t, withPassword, "SELECT 1")
	pgtest.Check(t, pgtest.InitBench(t.Context(), withPassword.Instance, pgtest.BenchOptions{}))
	if os.Geteuid() == 0 {
		peer := pgtest.Start(t, lab, server, pgtest.Options{Auth: "peer"})
		pgtest.Exec(t, peer, "SELECT 1")
		pgtest.Check(t, pgtest.InitBench(t.Context(), peer.Instance, pgtest.BenchOptions{}))
	}
}

// TestShortLoad stops a load as soon as it has started, and one whose server is gone.
func TestShortLoad(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "11"), pgtest.Options{})
	for range 5 {
		bench := pgtest.Load(t, cluster, pgtest.BenchOptions{})
		_, err := bench.Stop()
		pgtest.Check(t, err)
	}
	bench := pgtest.Load(t, cluster, pgtest.BenchOptions{})
	pgtest.Check(t, cluster.Restart(t.Context(), pgtest.Immediate))
	if _, err := bench.Stop(); err == nil {
		t.Error("no error from a load whose server was stopped")
	} else {
		t.Log(err)
	}
}

// TestStartFails shows the server's own words.
func TestStartFails(t *testing.T) {
	lab := pgtest.New(t)
	cluster, err := lab.NewCluster(t.Context(), pgtest.NeedServer(t, "12"), pgtest.Options{Settings: map[string]string{"wal_level": "nonsense"}})
	pgtest.Check(t, err)
	if err = cluster.Start(t.Context()); err == nil {
		t.Fatal("it started")
	}
	t.Log(err)
	if _, err := pgtest.FindServer("9"); err == nil {
		t.Error("found PostgreSQL 9")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := cluster.Start(ctx); err == nil {
		t.Error("it started in no time")
	}
}
