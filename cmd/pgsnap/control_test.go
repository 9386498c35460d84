package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/btrfs"
	"pgsnap/internal/catalog"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// The negative controls: what the round trips would look like if pgsnap forgot
// the WAL or the label.

// rawCopy is a writable clone of a backup's data directory, of which pgsnap has
// prepared nothing, as a hand-made script would have it. Its server is not
// started.
func rawCopy(t *testing.T, s site, backup *snap.Backup, name string) *pgtest.Cluster {
	t.Helper()
	to := filepath.Join(s.copies, name)
	pgtest.Check(t, os.MkdirAll(s.copies, 0o755))
	for _, snapshot := range backup.Snapshots {
		if snapshot.VolumeID != s.cluster.DataDir {
			continue
		}
		output, err := exec.Command("btrfs", "subvolume", "snapshot", snapshot.Directory, to).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
	}
	for _, leftover := range []string{"postmaster.pid", "postmaster.opts"} {
		pgtest.Check(t, os.RemoveAll(filepath.Join(to, leftover)))
	}
	copy, err := s.lab.Adopt(s.cluster.Server, to)
	pgtest.Check(t, err)
	return copy
}

// writeInto puts a file into a copy's data directory as its owner's.
func writeInto(t *testing.T, s site, copy *pgtest.Cluster, name string, data []byte) {
	t.Helper()
	path := filepath.Join(copy.DataDir, name)
	pgtest.Check(t, os.WriteFile(path, data, 0o600))
	pgtest.Check(t, s.lab.Own(path))
}

// recoverByScript makes a copy recover with the WAL that it has.
func recoverByScript(t *testing.T, s site, copy *pgtest.Cluster) {
	t.Helper()
	if s.cluster.Server.Major < 12 {
		writeInto(t, s, copy, "recovery.conf", []byte("restore_command = 'false'\n"))
		return
	}
	writeInto(t, s, copy, "recovery.signal", nil)
	pgtest.Check(t, copy.Configure(map[string]string{"restore_command": "false"}))
}

func newBtrfsSite(t *testing.T, server pgtest.Server) site {
	t.Helper()
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "btrfs", 3072)
	data, err := lab.Subvolume(t.Context(), fs, "data")
	pgtest.Check(t, err)
	plain, err := lab.Subvolume(t.Context(), fs, "plain")
	pgtest.Check(t, err)
	s := site{lab: lab, copies: filepath.Join(fs.Dir, "copies"), directories: []string{data, plain}}
	s.cluster = pgtest.Start(t, lab, server, pgtest.Options{DataDir: data, Fsync: true})
	pgtest.Check(t, s.cluster.CreateTablespace(t.Context(), "plain", plain))
	return s
}

// TestWithoutWAL: a snapshot with its label, but without the WAL to the stop, is
// what most scripts keep. The server refuses it in its own words.
func TestWithoutWAL(t *testing.T) {
	pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
		t.Parallel()
		s := newBtrfsSite(t, server)
		tool := newTool(t, s.lab, s.cluster.DSN(), "btrfs")
		pgtest.Load(t, s.cluster, pgtest.BenchOptions{})
		time.Sleep(200 * time.Millisecond)
		backup := tool.take()
		label, err := catalog.At(tool.catalog).File(backup, "backup_label")
		pgtest.Check(t, err)
		copy := rawCopy(t, s, backup, "raw")
		writeInto(t, s, copy, "backup_label", label)
		recoverByScript(t, s, copy)
		if err := copy.Start(t.Context()); err == nil {
			t.Error("a copy without the WAL to the backup's end started")
		}
		log, err := os.ReadFile(copy.LogFile)
		pgtest.Check(t, err)
		if !strings.Contains(string(log), "WAL ends before end of online backup") {
			t.Errorf("the server does not say why:\n%s", log)
		}
		tool.must(nil, "delete", backup.ID)
	})
}

// torn is the Btrfs driver on a bad day: volumes are cut seconds apart, with
// everything flushed in between.
type torn struct {
	btrfs.Driver
	between func()
}

func (d torn) Snapshot(ctx context.Context, name string, volumes []snap.Volume, metadata snap.Metadata) (snap.Set, error) {
	var all snap.Set
	for index, volume := range volumes {
		if index > 0 {
			d.between()
		}
		set, err := d.Driver.Snapshot(ctx, name, []snap.Volume{volume}, metadata)
		if err != nil {
			return all, err
		}
		all.Snapshots = append(all.Snapshots, set.Snapshots...)
	}
	return all, nil
}

// TestTorn: volumes cut seconds apart, with a checkpoint between, restore rightly
// by label and WAL. The same snapshots without the label do not.
func TestTorn(t *testing.T) {
	for _, name := range []string{"10", "14", "18"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newBtrfsSite(t, pgtest.NeedServer(t, name))
			pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "plain"})
			time.Sleep(300 * time.Millisecond)
			tool := newTool(t, s.lab, s.cluster.DSN(), "btrfs")
			backup := takeTorn(t, s, tool)
			if backup.Atomic || len(backup.Snapshots) != 2 {
				t.Errorf("atomic %v, snapshots %v", backup.Atomic, backup.Snapshots)
			}

			copy := tool.restore(backup.ID, filepath.Join(s.copies, "right"))
			balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, copy.Instance))
			pgtest.Check(t, err)
			if !balances.Agree() || balances.Accounts == 0 {
				t.Errorf("with label and WAL: %+v", balances)
			}

			if wrong, agree := withoutLabel(t, s, tool, backup); agree {
				t.Errorf("without the label it is right too, so the test proves nothing: %+v", wrong)
			}
		})
	}
}

func takeTorn(t *testing.T, s site, tool *tool) *snap.Backup {
	t.Helper()
	server, err := pgctl.Connect(t.Context(), s.cluster.DSN())
	pgtest.Check(t, err)
	defer server.Close()
	between := func() {
		time.Sleep(time.Second)
		pgtest.Exec(t, s.cluster, "CHECKPOINT")
		time.Sleep(time.Second)
	}
	var record *catalog.Record
	taker := snap.Taker{
		Cluster: "main", Server: server, Drivers: []snap.Driver{torn{between: between}},
		Progress: func(snap.Phase) {},
		Begin: func(b *snap.Backup) (snap.Record, error) {
			record, err = catalog.At(tool.catalog).Begin(b)
			return record, err
		},
	}
	backup, err := taker.Take(t.Context(), snap.TakeOptions{Mode: pgctl.Auto, Fast: true})
	pgtest.Check(t, err)
	record.Close()
	return backup
}

// withoutLabel restores the backup, takes the label and the signal away, and
// tells what the server makes of it by crash recovery alone.
func withoutLabel(t *testing.T, s site, tool *tool, backup *snap.Backup) (pgtest.Balances, bool) {
	t.Helper()
	var result restored
	tool.must(&result.Result, "restore", backup.ID, "--to", filepath.Join(s.copies, "wrong"))
	for _, name := range []string{"backup_label", "tablespace_map", "recovery.signal", "recovery.conf", "postgresql.auto.conf"} {
		pgtest.Check(t, os.RemoveAll(filepath.Join(result.DataDirectory, name)))
	}
	copy, err := s.lab.Adopt(s.cluster.Server, result.DataDirectory)
	pgtest.Check(t, err)
	if err := copy.Start(t.Context()); err != nil {
		return pgtest.Balances{}, false // refused
	}
	defer func() {
		pgtest.Check(t, copy.Stop(t.Context(), pgtest.Immediate))
	}()
	balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, copy))
	return balances, err == nil && balances.Agree()
}
