package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is what SQL is sent to: an [Instance] or a [Cluster].
type Database interface {
	Connect(ctx context.Context) (*pgx.Conn, error)
	Exec(ctx context.Context, sql string, args ...any) error
	Query(ctx context.Context, sql string, args ...any) (string, error)
}

// New makes a lab that is taken away when the test ends, however it ends. A failed test shows the end of each server's log.
func New(t testing.TB) *Lab {
	t.Helper()
	lab, err := NewLab()
	Check(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, log := range lab.Logs() {
				t.Logf("end of %s:\n%s", log, tail(log, 30))
			}
		}
		if err := lab.Close(); err != nil {
			t.Errorf("take the lab away: %v", err)
		}
	})
	return lab
}

// Check ends the test if err is not nil.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NeedServer returns the server of that name; a test whose server is missing fails.
func NeedServer(t testing.TB, name string) Server {
	t.Helper()
	server, err := FindServer(name)
	Check(t, err)
	return server
}

// ForEachServer runs a subtest for each server, named after it. One that is not installed fails.
func ForEachServer(t *testing.T, test func(t *testing.T, server Server)) {
	t.Helper()
	for _, name := range ServerNames() {
		t.Run(name, func(t *testing.T) { test(t, NeedServer(t, name)) })
	}
}

// Start makes a cluster and starts it.
func Start(t testing.TB, lab *Lab, server Server, o Options) *Cluster {
	t.Helper()
	cluster, err := lab.NewCluster(t.Context(), server, o)
	Check(t, err)
	Check(t, cluster.Start(t.Context()))
	return cluster
}

// Standby makes a standby of a running cluster and starts it.
func Standby(t testing.TB, lab *Lab, primary *Cluster) *Cluster {
	t.Helper()
	standby, err := lab.NewStandby(t.Context(), primary)
	Check(t, err)
	return standby
}

// Connect opens a connection that is closed at the end of the test.
func Connect(t testing.TB, db Database) *pgx.Conn {
	t.Helper()
	conn, err := db.Connect(t.Context())
	Check(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs SQL.
func Exec(t testing.TB, db Database, sql string, args ...any) {
	t.Helper()
	Check(t, db.Exec(t.Context(), sql, args...))
}

// Query runs SQL and returns the first column of the first row as text.
func Query(t testing.TB, db Database, sql string, args ...any) string {
	t.Helper()
	value, err := db.Query(t.Context(), sql, args...)
	Check(t, err)
	return value
}

// Mount makes and mounts a file system of kind xfs, btrfs or ext4, as [Lab.LoopFS] does.
func Mount(t testing.TB, lab *Lab, kind string, sizeMiB int, options ...string) *FS {
	t.Helper()
	fs, err := lab.LoopFS(t.Context(), kind, sizeMiB, options...)
	Check(t, err)
	return fs
}

// Load makes pgbench's tables and starts its load with two clients; whether it is stopped or not, it ends with the test.
func Load(t testing.TB, cluster *Cluster, o BenchOptions) *BenchRun {
	t.Helper()
	Check(t, InitBench(t.Context(), cluster.Instance, o))
	bench, err := StartBench(cluster.Instance, 2)
	Check(t, err)
	t.Cleanup(bench.Kill)
	return bench
}

// WriteLedger starts a ledger, which ends with the test at the latest.
func WriteLedger(t testing.TB, cluster *Cluster, pause time.Duration) *Ledger {
	t.Helper()
	ledger, err := StartLedger(t.Context(), cluster.Instance, pause)
	Check(t, err)
	t.Cleanup(func() { ledger.Stop() })
	return ledger
}

// Eventually waits until cond returns nil; after the timeout the test ends with its last error.
func Eventually(t testing.TB, timeout time.Duration, cond func() error) {
	t.Helper()
	Check(t, waitFor(t.Context(), timeout, cond))
}
