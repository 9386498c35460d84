package pgctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
)

// assertNoExclusive fails the test when the server is in exclusive backup mode.
func assertNoExclusive(t *testing.T, cluster *pgtest.Cluster) {
	t.Helper()
	for _, name := range []string{labelFile, mapFile} {
		if _, err := os.Lstat(filepath.Join(cluster.DataDir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if got := pgtest.Query(t, cluster, "SELECT pg_is_in_backup()"); got != "f" {
		t.Errorf("pg_is_in_backup() is %s", got)
	}
	if err := cluster.Exec(t.Context(), "SELECT pg_stop_backup(true, false)"); !hasCode(err, "55000") {
		t.Errorf("another stop: %v", err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	pgtest.Check(t, err)
	return string(data)
}

// beginForeign begins an exclusive backup that is not pgsnap's.
func beginForeign(t *testing.T, cluster *pgtest.Cluster) {
	t.Helper()
	pgtest.Exec(t, cluster, "SELECT pg_start_backup('their nightly', true, true)")
}

func testExclusive(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	backup := start(t, server, Exclusive)
	label, tablespaceMap := readFile(t, filepath.Join(cluster.DataDir, labelFile)), readFile(t, filepath.Join(cluster.DataDir, mapFile))
	if backup.Mode != Exclusive || string(backup.Files.Label) != label || string(backup.Files.TablespaceMap) != tablespaceMap {
		t.Errorf("started %+v, and the server wrote %q and %q", backup, label, tablespaceMap)
	}
	stop, files, err := backup.Stop(t.Context())
	pgtest.Check(t, err)
	assertFiles(t, server, backup, files, stop, "pg_start_backup")
	if string(files.Label) != label || string(files.TablespaceMap) != tablespaceMap {
		t.Errorf("stopping gave %q and %q, and the server wrote %q and %q", files.Label, files.TablespaceMap, label, tablespaceMap)
	}
	assertNoExclusive(t, cluster)
	pgtest.Check(t, backup.Abort()) // does nothing any more

	again := start(t, server, Exclusive)
	pgtest.Check(t, again.Abort())
	assertNoExclusive(t, cluster)
}

func testNoExclusive(t *testing.T, cluster *pgtest.Cluster) {
	_, err := connect(t, cluster).StartBackup(t.Context(), options(Exclusive))
	if fault.KindOf(err) != fault.Server || !strings.Contains(err.Error(), "removed in 15") || fault.HintOf(err) == "" {
		t.Errorf("error is %v (%s)", err, fault.HintOf(err))
	}
}

func testExclusiveCancelledStart(t *testing.T, cluster *pgtest.Cluster) {
	for _, lose := range []bool{false, true} {
		startAndEnd(t, cluster, connect(t, cluster), Exclusive, lose)
		assertNoExclusive(t, cluster)
	}
}

// testExclusiveLostSession: the backup outlives its session, so Abort ends it
// over another, and Stop says that the slot is gone.
func testExclusiveLostSession(t *testing.T, cluster *pgtest.Cluster) {
	backup := start(t, connect(t, cluster), Exclusive)
	pgtest.Exec(t, cluster, fmt.Sprintf("SELECT pg_terminate_backend(%d)", backup.pid))
	eventuallyNone(t, cluster, "sessions", fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", backup.pid))
	if _, err := os.Stat(filepath.Join(cluster.DataDir, labelFile)); err != nil {
		t.Fatalf("the backup ended with its session: %v", err)
	}
	pgtest.Check(t, backup.Abort())
	assertNoExclusive(t, cluster)
}

// testExclusiveForeign: pgsnap neither begins beside an exclusive backup of
// somebody else nor ends it.
func testExclusiveForeign(t *testing.T, cluster *pgtest.Cluster) {
	label := filepath.Join(cluster.DataDir, labelFile)

	beginForeign(t, cluster)
	_, err := connect(t, cluster).StartBackup(t.Context(), options(Exclusive))
	if fault.KindOf(err) != fault.Busy || !strings.Contains(err.Error(), `"their nightly"`) || !strings.Contains(err.Error(), label) ||
		!strings.Contains(fault.HintOf(err), "pg_stop_backup") {
		t.Errorf("beside a running one: %v (%s)", err, fault.HintOf(err))
	}
	// Non-exclusive ones do not mind.
	both := start(t, connect(t, cluster), NonExclusive)
	if _, _, err := both.Stop(t.Context()); err != nil {
		t.Errorf("a non-exclusive backup beside it: %v", err)
	}
	pgtest.Exec(t, cluster, "SELECT pg_stop_backup(true, false)")

	for name, content := range map[string]string{"of a dead backup": labels["11 to 13"].text, "of nobody": "garbage"} {
		pgtest.Check(t, os.WriteFile(label, []byte(content), 0o600))
		_, err := connect(t, cluster).StartBackup(t.Context(), options(Exclusive))
		if fault.KindOf(err) != fault.Busy || !strings.Contains(err.Error(), label) || !strings.Contains(fault.HintOf(err), "rename") {
			t.Errorf("a label %s: %v (%s)", name, err, fault.HintOf(err))
		}
		pgtest.Check(t, os.Remove(label))
	}

	// Somebody ends ours.
	backup := start(t, connect(t, cluster), Exclusive)
	pgtest.Exec(t, cluster, "SELECT pg_stop_backup(true, false)")
	if _, _, err := backup.Stop(t.Context()); fault.KindOf(err) != fault.Server {
		t.Errorf("stopping what somebody else stopped: %v", err)
	}
	pgtest.Check(t, backup.Abort())

	// Somebody ends ours and begins another, with the session alive or lost.
	for _, lost := range []bool{false, true} {
		backup := start(t, connect(t, cluster), Exclusive)
		pgtest.Exec(t, cluster, "SELECT pg_stop_backup(true, false)")
		beginForeign(t, cluster)
		if lost {
			pgtest.Exec(t, cluster, fmt.Sprintf("SELECT pg_terminate_backend(%d)", backup.pid))
		}
		if _, _, err := backup.Stop(t.Context()); fault.KindOf(err) != fault.Server {
			t.Errorf("stopping where somebody else's runs: %v", err)
		}
		pgtest.Check(t, backup.Abort())
		if parsed, err := ParseBackupLabel([]byte(readFile(t, label))); err != nil || parsed.Label != "their nightly" {
			t.Errorf("after that there is the label %+v (%v)", parsed, err)
		}
		pgtest.Exec(t, cluster, "SELECT pg_stop_backup(true, false)")
	}
	assertNoExclusive(t, cluster)
}
