package wal_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/wal"
)

// segments is how many segments a backup of these tests spans at least.
const segments = 4

// TestServers captures what a backup on a real server spans while the server
// recycles what it may.
func TestServers(t *testing.T) {
	for name, test := range map[string]struct {
		server  string
		options pgtest.Options
		size    uint64
	}{
		"10":              {"10", pgtest.Options{}, 16 << 20},
		"11, 1 MiB":       {"11", pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}}, 1 << 20},
		"15, pg_wal away": {"debian-15", pgtest.Options{}, 16 << 20},
		"18, 1 MiB":       {"18", pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}}, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := pgtest.New(t)
			if strings.Contains(name, "away") {
				test.options.WALDir = lab.Path("the wal")
			}
			cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, test.server), test.options)
			backup := take(t, cluster)
			if backup.SegmentSize != test.size || backup.Timeline != 1 {
				t.Errorf("took %+v", backup.Range)
			}
			backup.assertWhole(t)
		})
	}
}

// TestTimelines captures on a server that was promoted twice.
func TestTimelines(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "debian-15"), pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}})
	for range 2 {
		standby := pgtest.Standby(t, lab, cluster)
		if promoted := pgtest.Query(t, standby, "SELECT pg_promote()"); promoted != "t" {
			t.Fatal("the standby was not promoted")
		}
		pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Immediate))
		cluster = standby
	}
	backup := take(t, cluster)
	if histories := backup.Files[:2]; !slices.Equal(histories, []string{"00000002.history", "00000003.history"}) || backup.Timeline != 3 {
		t.Errorf("captured on timeline %d: %q", backup.Timeline, backup.Files)
	}
	backup.assertWhole(t)
}

// backup is one that was taken of a cluster, as far as its WAL goes.
type backup struct {
	wal.Captured
	cluster *pgtest.Cluster
	kept    string
	system  uint64
}

func take(t *testing.T, cluster *pgtest.Cluster) backup {
	t.Helper()
	server, err := pgctl.Connect(t.Context(), cluster.DSN())
	pgtest.Check(t, err)
	defer server.Close()
	session, err := server.StartBackup(t.Context(), pgctl.BackupOptions{Label: "test", Fast: true, Slot: "test"})
	pgtest.Check(t, err)
	pgtest.Exec(t, cluster, "CREATE TABLE written (text text)")
	for range segments {
		pgtest.Exec(t, cluster, "INSERT INTO written SELECT repeat(md5(n::text), 10) FROM generate_series(1, 100) n")
		pgtest.Exec(t, cluster, "SELECT pg_switch_wal()")
		pgtest.Exec(t, cluster, "CHECKPOINT") // which removes the segments that nobody holds
	}
	stop, files, err := session.Stop(t.Context())
	pgtest.Check(t, err)
	label, err := pgctl.ParseBackupLabel(files.Label)
	pgtest.Check(t, err)
	b := backup{cluster: cluster, kept: t.TempDir(), system: server.Facts.SystemIdentifier}
	needed := wal.Range{Timeline: label.Timeline, Start: session.Start, Stop: stop, SegmentSize: server.Facts.WALSegmentSize}
	b.Captured, err = wal.Capture(t.Context(), filepath.Join(cluster.DataDir, "pg_wal"), b.kept, needed, b.system)
	pgtest.Check(t, err)
	if first, last := needed.Segments(); last-first < segments {
		t.Errorf("the backup spans segments %d to %d only", first, last)
	}
	if first, _ := needed.Segments(); needed.SegmentName(first) != label.Segment {
		t.Errorf("the first segment is %s, and the label says %s", needed.SegmentName(first), label.Segment)
	}
	return b
}

// assertWhole unpacks the WAL, compares it with the server's own and lets
// pg_waldump read it from end to end.
func (b backup) assertWhole(t *testing.T) {
	t.Helper()
	restored := t.TempDir()
	pgtest.Check(t, os.Mkdir(filepath.Join(restored, "archive_status"), 0o700))
	pgtest.Check(t, wal.Unpack(t.Context(), b.kept, restored, b.Captured, b.system))
	first, last := b.Segments()
	for number := first; number <= last; number++ {
		name := b.SegmentName(number)
		ours, err := os.ReadFile(filepath.Join(restored, name))
		pgtest.Check(t, err)
		theirs, err := os.ReadFile(filepath.Join(b.cluster.DataDir, "pg_wal", name))
		pgtest.Check(t, err)
		if number == last { // the server may have written more
			end := uint64(b.Stop) - number*b.SegmentSize
			ours, theirs = ours[:end], theirs[:end]
		}
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%s is not the server's", name)
		}
	}
	if b.cluster.Server.Major != 15 {
		return // pg_waldump reads its own version's WAL only
	}
	program, err := pgtest.Tool("pg_waldump")
	pgtest.Check(t, err)
	output, err := exec.CommandContext(t.Context(), program, "--quiet", "--path="+restored,
		fmt.Sprintf("--timeline=%d", b.Timeline), "--start="+b.Start.String(), "--end="+b.Stop.String()).CombinedOutput()
	if err != nil {
		t.Errorf("pg_waldump: %v\n%s", err, output)
	}
}
