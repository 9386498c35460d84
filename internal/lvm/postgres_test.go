package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
)

// site is a cluster with its data, its WAL and a tablespace on three volumes.
type site struct {
	*group
	cluster *pgtest.Cluster
	roots   []string
}

// newSite makes the volumes in groups, one after another.
func newSite(t *testing.T, version string, groups ...*group) site {
	t.Helper()
	g := groups[0]
	s := site{group: g}
	for index, lv := range []string{"da-ta", "wal", "table.space+1"} {
		root := g.lab.Path("site", lv)
		groups[index%len(groups)].volume(lv, "700M", root, "noatime")
		s.roots = append(s.roots, root)
	}
	s.cluster = pgtest.Start(t, g.lab, pgtest.NeedServer(t, version), pgtest.Options{
		DataDir: filepath.Join(s.roots[0], version, "main"), WALDir: filepath.Join(s.roots[1], "pg_wal"), Fsync: true,
	})
	pgtest.Check(t, s.cluster.CreateTablespace(t.Context(), "other", filepath.Join(s.roots[2], "pg")))
	return s
}

// destroy is the loss of everything but the snapshots. A classic snapshot goes with
// its origin, so of classic volumes the files are lost.
func (s site) destroy(t *testing.T, groups ...*group) {
	t.Helper()
	pgtest.Check(t, s.cluster.Stop(t.Context(), pgtest.Immediate))
	for _, g := range groups {
		for root := range g.volumes {
			if g.pool != "" {
				g.removeVolume(t, root)
				continue
			}
			entries, err := os.ReadDir(root)
			pgtest.Check(t, err)
			for _, entry := range entries {
				pgtest.Check(t, os.RemoveAll(filepath.Join(root, entry.Name())))
			}
		}
	}
}

// TestRoundTrip takes a backup under load with the real program, loses the
// original, and restores.
func TestRoundTrip(t *testing.T) {
	needLab(t)
	for _, c := range []struct {
		version, mode, pool, fsType, lvm string
	}{
		{"18", "non-exclusive", "pool", "xfs", ""},
		{"13", "exclusive", "pool", "ext4", ""},
		{"13", "exclusive", "", "xfs", `size = "50%ORIGIN"`},
		{"18", "non-exclusive", "", "ext4", `size = "400M"`},
		{"18", "non-exclusive", "pool", "ext4", "instant = true"},
		{"13", "non-exclusive", "", "xfs", "instant = true\nsize = \"50%ORIGIN\""},
	} {
		kind := "thin"
		if c.pool == "" {
			kind = "classic"
		}
		name := fmt.Sprintf("%s %s on %s %s %.7s", c.version, c.mode, kind, c.fsType, c.lvm)
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, "vg--x", c.pool, c.fsType)
			s := newSite(t, c.version, g)
			tool := newTool(t, g.lab.Path("catalog"), s.cluster.DSN(), c.lvm)
			load := pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "other"})
			time.Sleep(time.Second)
			backup := tool.take("--mode", c.mode)
			t.Logf("seconds: %v, atomic: %v", backup.Seconds, backup.Atomic)
			if len(backup.Snapshots) != 3 || string(backup.Mode) != c.mode || backup.Atomic != strings.Contains(c.lvm, "instant") {
				t.Errorf("mode %s, atomic %v, snapshots %+v", backup.Mode, backup.Atomic, backup.Snapshots)
			}
			load.Kill()
			s.destroy(t, g)
			tool.restore(backup.ID, g.lab.Path("copy"))
			tool.must(nil, "delete", backup.ID)
			if left := g.inventory(t); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestTakeTime compares a take with the bare commands for its snapshots, and
// counts the programs that it starts.
func TestTakeTime(t *testing.T) {
	needLab(t)
	g := newGroup(t, "vg", "pool", "ext4")
	s := newSite(t, "18", g)
	tool := newTool(t, g.lab.Path("catalog"), s.cluster.DSN(), "")
	var bare, taken, window []time.Duration
	for round := range 5 {
		start := time.Now()
		for index, lv := range []string{"da-ta", "wal", "table.space+1"} {
			program(t, "lvcreate", "--yes", "--snapshot", "--setactivationskip", "n", "--name", fmt.Sprintf("bare%d-%d", round, index), "vg/"+lv)
		}
		bare = append(bare, time.Since(start))
		start = time.Now()
		backup := tool.take()
		taken = append(taken, time.Since(start))
		window = append(window, time.Duration(backup.Seconds["backup_mode"]*float64(time.Second)))
		t.Logf("bare %v, take %v: %v", bare[round], taken[round], backup.Seconds)
	}
	t.Logf("bare %v, take %v, backup mode %v", bare, taken, window)

	counted := countPrograms(t)
	tool.take()
	started := counted()
	t.Logf("programs of a take: %q", started)
	if len(started) != 5 {
		t.Errorf("%d programs were started for three volumes", len(started))
	}
}

// countPrograms puts programs before those of lvm2 that note that they are started.
func countPrograms(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, name := range []string{"lvm", "lvs", "vgs", "pvs", "lvcreate", "lvchange", "lvremove", "dmsetup", "mount", "umount", "sh", "bash", "fsfreeze", "blkid"} {
		script := fmt.Sprintf("#!/bin/bash\necho %s >>%s\nPATH=${PATH#*:} exec %s \"$@\"\n", name, log, name)
		pgtest.Check(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		text, err := os.ReadFile(log)
		pgtest.Check(t, err)
		return strings.Fields(string(text))
	}
}
