package pgctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/wal"
)

const (
	slotsOfTest = "SELECT count(*) FROM pg_replication_slots"
	testLabel   = `a label: "quoted", 漢字 \ and so on`
)

var slotNumber atomic.Int64

// options are those of a backup with a fast start and a slot of its own.
func options(mode Mode) BackupOptions {
	return BackupOptions{Label: testLabel, Mode: mode, Fast: true, Slot: fmt.Sprintf("pgsnap_test_%d", slotNumber.Add(1))}
}

func start(t *testing.T, server *Server, mode Mode) *Backup {
	t.Helper()
	backup, err := server.StartBackup(t.Context(), options(mode))
	pgtest.Check(t, err)
	return backup
}

func ownerOf(t *testing.T, path string) string {
	t.Helper()
	uid, gid, err := Owner(path)
	pgtest.Check(t, err)
	return fmt.Sprint(uid, " ", gid)
}

// mkdirOwned makes a directory for the owner of its parent's neighbour, the data
// directory.
func mkdirOwned(t *testing.T, dir string) {
	t.Helper()
	pgtest.Check(t, os.Mkdir(dir, 0o700))
	uid, gid, err := Owner(filepath.Join(filepath.Dir(dir), "data"))
	pgtest.Check(t, err)
	pgtest.Check(t, os.Chown(dir, uid, gid))
}

// assertFiles compares the label and the map with what is known in other ways.
func assertFiles(t *testing.T, server *Server, backup *Backup, files BackupFiles, stop wal.LSN, method string) {
	t.Helper()
	label, err := ParseBackupLabel(files.Label)
	pgtest.Check(t, err)
	if label.Label != testLabel || label.Method != method || label.Timeline != 1 || label.Start != backup.Start {
		t.Errorf("the label is %+v, the start %s", label, backup.Start)
	}
	pgtest.Check(t, label.Matches(backup.Start))
	if stop <= backup.Start || label.Checkpoint < backup.Start {
		t.Errorf("the backup is from %s, with its checkpoint at %s, to %s", backup.Start, label.Checkpoint, stop)
	}
	mapped, err := ParseTablespaceMap(files.TablespaceMap, server.Facts.Major())
	pgtest.Check(t, err)
	again, err := FormatTablespaceMap(mapped, server.Facts.Major())
	if err != nil || string(again) != string(files.TablespaceMap) {
		t.Errorf("the server wrote the map %q, which is written %q (%v)", files.TablespaceMap, again, err)
	}
	slices.SortFunc(mapped, func(a, b MappedTablespace) int { return cmp.Compare(a.OID, b.OID) })
	var want []MappedTablespace
	for _, tablespace := range server.Facts.Tablespaces {
		if !tablespace.InPlace() {
			want = append(want, MappedTablespace{tablespace.OID, tablespace.Location})
		}
	}
	if !slices.Equal(mapped, want) {
		t.Errorf("the map is of %+v, and there are %+v", mapped, want)
	}
}

func testNonExclusive(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	asked := options(Auto)
	backup, err := server.StartBackup(t.Context(), asked)
	pgtest.Check(t, err)
	if backup.Mode != NonExclusive || backup.Warning != "" || backup.Files.Label != nil {
		t.Errorf("started %+v", backup)
	}
	slot := pgtest.Query(t, cluster, "SELECT slot_name || ' ' || slot_type || ' ' || temporary || ' ' || (active_pid = "+fmt.Sprint(backup.pid)+
		") || ' ' || (restart_lsn <= '"+backup.Start.String()+"') FROM pg_replication_slots")
	if want := asked.Slot + " physical true true true"; slot != want {
		t.Errorf("the slot is %q, want %q", slot, want)
	}
	// A second one at the same time, as pg_basebackup's would be.
	other := connect(t, cluster)
	second, err := other.StartBackup(t.Context(), options(NonExclusive))
	pgtest.Check(t, err)
	if _, _, err := second.Stop(t.Context()); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a stop is not given up half way
	stop, files, err := backup.Stop(ctx)
	pgtest.Check(t, err)
	assertFiles(t, server, backup, files, stop, "streamed")
	if string(files.Label) != string(backup.Files.Label) {
		t.Error("the backup keeps another label than it returned")
	}
	if count := pgtest.Query(t, cluster, slotsOfTest); count != "2" {
		t.Errorf("%s slots after the stop: the WAL must still be there", count)
	}
	pgtest.Check(t, backup.Abort()) // does nothing any more
	server.Close()
	other.Close()
	eventuallyNone(t, cluster, "slots after the end of the sessions", slotsOfTest)
	server.Close() // twice is allowed
}

// testLostSession ends the session in the middle of a backup.
func testLostSession(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	backup := start(t, server, NonExclusive)
	backup.heartbeat = 10 * time.Millisecond
	watched, end := backup.Watch(t.Context())
	time.Sleep(5 * backup.heartbeat)
	if err := context.Cause(watched); err != nil {
		t.Errorf("with the session alive: %v", err)
	}
	pgtest.Exec(t, cluster, fmt.Sprintf("SELECT pg_terminate_backend(%d)", backup.pid))
	select {
	case <-watched.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed")
	}
	err := context.Cause(watched)
	if fault.KindOf(err) != fault.Server || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "session was lost") {
		t.Errorf("the cause is %v (%s)", err, fault.HintOf(err))
	}
	if t.Context().Err() != nil {
		t.Error("the caller's own context was cancelled")
	}
	end()
	if _, files, err := backup.Stop(t.Context()); fault.KindOf(err) != fault.Server || files.Label != nil {
		t.Errorf("stopping said %v and gave %q", err, files.Label)
	}
	pgtest.Check(t, backup.Abort())
	eventuallyNone(t, cluster, "slots after the session was lost", slotsOfTest)
}

// testWatch: the heartbeat itself ends nothing.
func testWatch(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	backup := start(t, server, Auto)
	backup.heartbeat = time.Millisecond
	ctx, cancel := context.WithCancelCause(t.Context())
	watched, end := backup.Watch(ctx)
	why := errors.New("somebody pressed a key")
	cancel(why)
	<-watched.Done()
	if cause := context.Cause(watched); !errors.Is(cause, why) {
		t.Errorf("the cause is %v", cause)
	}
	end()

	watched, end = backup.Watch(t.Context())
	end()
	if watched.Err() == nil {
		t.Error("the watched context goes on after its end")
	}
	if _, _, err := backup.Stop(t.Context()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// testOtherBackend: a pooler may hand the session's statements to another one.
func testOtherBackend(t *testing.T, cluster *pgtest.Cluster) {
	backup := start(t, connect(t, cluster), Auto)
	backup.server = connect(t, cluster)
	if _, _, err := backup.Stop(t.Context()); fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "pooler") {
		t.Errorf("error is %v (%s)", err, fault.HintOf(err))
	}
}

// dirty gives a spread checkpoint something to write for minutes.
func dirty(t *testing.T, cluster *pgtest.Cluster) {
	t.Helper()
	write(t, cluster, "DROP TABLE IF EXISTS dirty", "CREATE TABLE dirty AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
}

// startAndEnd begins a backup with a spread checkpoint and ends it while the
// checkpoint is under way: by cancelling, or by the loss of its session.
func startAndEnd(t *testing.T, cluster *pgtest.Cluster, server *Server, mode Mode, lose bool) {
	t.Helper()
	dirty(t, cluster)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	underWay := `SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_(start_backup|backup_start)'
		AND state = 'active' AND query_start < now() - interval '300 ms'`
	go func() {
		pid := ""
		for begin := time.Now(); pid == "" && time.Since(begin) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
			pid, _ = cluster.Query(ctx, underWay)
		}
		if lose && pid != "" {
			_ = cluster.Exec(ctx, "SELECT pg_terminate_backend("+pid+")")
			return
		}
		cancel()
	}()
	begun := time.Now()
	spread := options(mode)
	spread.Fast = false
	backup, err := server.StartBackup(ctx, spread)
	if err == nil {
		_, _, _ = backup.Stop(t.Context())
		t.Fatal("it started: the checkpoint was not spread")
	}
	if fault.KindOf(err) != fault.Server || lose != hasCode(err, "57P01") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	pgtest.Exec(t, cluster, "CHECKPOINT") // ends the spread one
}

func testCancelledStart(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	startAndEnd(t, cluster, server, NonExclusive, false)
	// In backup mode this session could stop; and another start would be refused.
	stop := "SELECT count(*)::text FROM pg_stop_backup(false, false)"
	if server.Facts.Major() >= 15 {
		stop = "SELECT count(*)::text FROM pg_backup_stop(false)"
	}
	if _, err := server.rows(t.Context(), stop); !hasCode(err, "55000") {
		t.Errorf("stopping what was not begun: %v", err)
	}
	server.Close()
	eventuallyNone(t, cluster, "slots after a cancelled start", slotsOfTest)
}

// testNoSlots: without a slot there is a backup, and a warning.
func testNoSlots(t *testing.T, cluster *pgtest.Cluster) {
	modes := []Mode{NonExclusive}
	if cluster.Server.Major < 15 {
		modes = append(modes, Exclusive)
	}
	for _, mode := range modes {
		server := connect(t, cluster)
		backup := start(t, server, mode)
		if !strings.Contains(backup.Warning, "no replication slot keeps the WAL") || !strings.Contains(backup.Warning, "max_replication_slots") {
			t.Errorf("%s: the warning is %q", mode, backup.Warning)
		}
		if _, _, err := backup.Stop(t.Context()); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// TestStandby takes the session, and not the exclusive mode, on a standby.
func TestStandby(t *testing.T) {
	for _, name := range []string{"10", "14", "18"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := pgtest.New(t)
			primary := pgtest.Start(t, lab, pgtest.NeedServer(t, name), pgtest.Options{})
			server := connect(t, pgtest.Standby(t, lab, primary))
			if !server.Facts.InRecovery {
				t.Error("it does not know that it is a standby")
			}
			_, err := server.StartBackup(t.Context(), options(Exclusive))
			if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "auto") {
				t.Errorf("exclusive mode: %v (%s)", err, fault.HintOf(err))
			}
			backup := start(t, server, Auto)
			stop, files, err := backup.Stop(t.Context())
			pgtest.Check(t, err)
			label, err := ParseBackupLabel(files.Label)
			pgtest.Check(t, err)
			if label.From != "standby" || label.Start != backup.Start || stop < backup.Start || backup.Warning != "" {
				t.Errorf("from %s to %s (%s): %+v", backup.Start, stop, backup.Warning, label)
			}
		})
	}
}

func TestRefusedLabel(t *testing.T) {
	_, err := (&Server{Facts: Facts{Version: 150000}}).StartBackup(t.Context(), BackupOptions{Label: "x\nSTART TIMELINE: 99"})
	if fault.KindOf(err) != fault.Usage {
		t.Errorf("error is %v", err)
	}
}

func TestResolve(t *testing.T) {
	const old, new = 140000, 150000
	for _, test := range []struct {
		mode    Mode
		version int
		standby bool
		want    Mode
		kind    fault.Kind
	}{
		{"", old, false, NonExclusive, 0},
		{Auto, 100000, false, NonExclusive, 0},
		{Auto, new, true, NonExclusive, 0},
		{NonExclusive, old, true, NonExclusive, 0},
		{Exclusive, 100000, false, Exclusive, 0},
		{Exclusive, 149999, false, Exclusive, 0},
		{Exclusive, new, false, "", fault.Server},
		{Exclusive, new, true, "", fault.Server},
		{Exclusive, old, true, "", fault.Server},
		{"exclusiv", old, false, "", fault.Usage},
		{"AUTO", old, false, "", fault.Usage},
		{"exclusiv", new, true, "", fault.Usage},
	} {
		got, err := test.mode.Resolve(Facts{Version: test.version, InRecovery: test.standby})
		if got != test.want || fault.KindOf(err) != test.kind || (err != nil) != (test.kind != 0) {
			t.Errorf("%q on %d (standby %v): %q, %v", test.mode, test.version, test.standby, got, err)
		}
		if err != nil && fault.HintOf(err) == "" {
			t.Errorf("%v has no hint", err)
		}
	}
}
