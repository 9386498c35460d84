package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestDeepInVolume: the data directory, pg_wal and a tablespace lie deep in one
// subvolume, with another nested below the data directory. One instant covers the
// first, and copies go to the same file system and to another.
func TestDeepInVolume(t *testing.T) {
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "btrfs", 2048)
	root, err := lab.Subvolume(t.Context(), fs, "a,volume")
	pgtest.Check(t, err)
	data := filepath.Join(root, "deep", "data")
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "16"), pgtest.Options{DataDir: data, Fsync: true})
	pgtest.Check(t, cluster.CreateTablespace(t.Context(), "inside", filepath.Join(root, "deep", "spaces", "inside")))
	pgtest.Load(t, cluster, pgtest.BenchOptions{Tablespace: "inside"})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	backup := tool.take()
	if !backup.Atomic || len(backup.Volumes) != 1 || backup.Volumes[0].Driver != "btrfs" {
		t.Errorf("one subvolume is not one instant: %+v", backup.Volumes)
	}
	for _, to := range []string{filepath.Join(fs.Dir, "near"), lab.Path("far away")} {
		copy := tool.restore(backup.ID, to)
		checkBalances(t, copy)
		copy.touchesNothingIn(t, root)
		if real, err := os.Readlink(copy.DataDirectory); err != nil || !strings.HasPrefix(real, copy.Destination) {
			t.Errorf("the data directory is %q, %v", real, err)
		}
		tool.release(copy)
	}
	t.Run("nested", func(t *testing.T) {
		tool.t = t
		nested, err := lab.Subvolume(t.Context(), fs, "a,volume/deep/data/nested")
		pgtest.Check(t, err)
		pgtest.Check(t, os.WriteFile(filepath.Join(nested, "file"), []byte("kept"), 0o600))
		backup := tool.take()
		if backup.Atomic || len(backup.Volumes) != 2 {
			t.Errorf("the nested subvolume is not a volume: %+v", backup.Volumes)
		}
		for _, to := range []string{filepath.Join(fs.Dir, "near"), lab.Path("far away")} {
			copy := tool.restore(backup.ID, to)
			checkBalances(t, copy)
			if kept, err := os.ReadFile(filepath.Join(copy.DataDirectory, "nested", "file")); string(kept) != "kept" {
				t.Errorf("the nested subvolume's file: %q, %v", kept, err)
			}
			tool.release(copy)
		}
	})
}

func checkBalances(t *testing.T, copy restored) {
	t.Helper()
	balances, err := pgtest.ReadBalances(t.Context(), pgtest.Connect(t, copy.Instance))
	pgtest.Check(t, err)
	if !balances.Agree() || balances.Accounts == 0 {
		t.Errorf("balances of the copy: %+v", balances)
	}
}

// TestNestedMounts: pg_wal is a file system of its own, mounted in the data
// directory without a link.
func TestNestedMounts(t *testing.T) {
	lab := pgtest.New(t)
	wal := pgtest.Mount(t, lab, "ext4", 300)
	cluster, err := lab.NewCluster(t.Context(), pgtest.NeedServer(t, "17"), pgtest.Options{DataDir: lab.Path("site", "data")})
	pgtest.Check(t, err)
	inside := filepath.Join(cluster.DataDir, "pg_wal")
	output, err := exec.Command("cp", "-a", inside+"/.", wal.Dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	output, err = exec.Command("mount", "--bind", wal.Dir, inside).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	pgtest.Check(t, cluster.Start(t.Context()))
	pgtest.Load(t, cluster, pgtest.BenchOptions{})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	backup := tool.take()
	roles := map[snap.Role]int{}
	for _, volume := range backup.Volumes {
		for _, path := range volume.Paths {
			roles[path.Role]++
		}
	}
	if roles[snap.WALDirectory] != 1 {
		t.Errorf("pg_wal is not covered as such: %+v", backup.Volumes)
	}
	checkBalances(t, tool.restore(backup.ID, lab.Path("copy")))
}

// TestMappedTablespaces: --tablespace puts them where it says, and only there.
func TestMappedTablespaces(t *testing.T) {
	s := newSite(t, pgtest.NeedServer(t, "13"), "btrfs")
	tool := newTool(t, s.lab, s.cluster.DSN(), "btrfs")
	pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "plain", IndexTablespace: "odd"})
	backup := tool.take()
	plain, odd := s.directories[2], s.directories[3]
	place := s.lab.Path("new place", `a=b \ c`)
	copy := tool.restore(backup.ID, s.lab.Path("copy"), "--tablespace", odd+"="+strings.ReplaceAll(place, "=", `\=`))
	checkBalances(t, copy)
	copy.touchesNothingIn(t, s.directories...)
	for _, tablespace := range copy.Tablespaces {
		if tablespace.Old == odd && tablespace.New != place {
			t.Errorf("%s is at %s, want %s", odd, tablespace.New, place)
		}
	}
	// A second copy while the first runs, from the same snapshots.
	second := tool.restore(backup.ID, s.lab.Path("second"))
	checkBalances(t, second)
	second.touchesNothingIn(t, append(s.directories, place, copy.Destination)...)
	if second.Result.Port == copy.Result.Port {
		t.Errorf("both copies are on port %d", copy.Result.Port)
	}
	tool.fails(2, []string{plain, "live cluster"}, "restore", backup.ID, "--to", s.lab.Path("third"), "--tablespace", odd+"="+filepath.Join(plain, "x"))
	tool.release(copy)
	if _, err := os.Lstat(place); err == nil {
		t.Errorf("%s is left", place)
	}
}

// TestDebianLayout: configuration in /etc/postgresql, root and peer
// authentication, and a copy beside the running original. The settings that would
// lead a copy into the original are those of Debian's packages.
func TestDebianLayout(t *testing.T) {
	lab := pgtest.New(t)
	name := "pgsnap" + strconv.Itoa(os.Getpid())
	run := func(program string, args ...string) {
		t.Helper()
		if output, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, output)
		}
	}
	run("pg_createcluster", "--start-conf", "manual", "15", name)
	lab.Defer("drop the Debian cluster", func() error { return exec.Command("pg_dropcluster", "--stop", "15", name).Run() })
	run("pg_ctlcluster", "15", name, "start")
	status, err := exec.Command("pg_lsclusters", "--no-header", "15", name).Output()
	pgtest.Check(t, err)
	port := strings.Fields(string(status))[2]
	tool := newTool(t, lab, "host=/var/run/postgresql user=postgres port="+port, "auto")
	config := filepath.Join("/etc/postgresql/15", name)
	pgtest.Check(t, os.WriteFile(filepath.Join(config, "conf.d", "more.conf"), []byte("work_mem = '5MB'\n"), 0o644))
	run("pg_ctlcluster", "15", name, "reload")
	backup := tool.take()
	copy := tool.restore(backup.ID, lab.Path("copy"))
	for setting, want := range map[string]string{
		"data_directory": copy.DataDirectory, "work_mem": "5MB", "archive_mode": "off",
		"hba_file": filepath.Join(copy.Destination, "config", config, "pg_hba.conf"),
	} {
		if value := pgtest.Query(t, copy.Instance, "SHOW "+setting); value != want {
			t.Errorf("%s is %s, want %s", setting, value, want)
		}
	}
	copy.touchesNothingIn(t, filepath.Join("/var/lib/postgresql/15", name), config)
	log, err := os.ReadFile(copy.Log)
	pgtest.Check(t, err)
	for _, bad := range []string{"could not", "ERROR", "WARNING"} {
		if strings.Contains(string(log), bad) {
			t.Errorf("the copy's log says %q:\n%s", bad, log)
		}
	}
}

// TestNestedWAL: pg_wal and log are subvolumes nested in the data directory's,
// which a snapshot holds only as stubs that nothing can be made in.
func TestNestedWAL(t *testing.T) {
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "btrfs", 2048)
	data, err := lab.Subvolume(t.Context(), fs, "data")
	pgtest.Check(t, err)
	cluster, err := lab.NewCluster(t.Context(), pgtest.NeedServer(t, "18"), pgtest.Options{
		DataDir: data, Fsync: true, Settings: map[string]string{"logging_collector": "on", "log_directory": "log"},
	})
	pgtest.Check(t, err)
	output, err := exec.Command("cp", "-a", filepath.Join(data, "pg_wal"), filepath.Join(fs.Dir, "wal")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	pgtest.Check(t, os.RemoveAll(filepath.Join(data, "pg_wal")))
	for _, name := range []string{"data/pg_wal", "data/log"} {
		_, err := lab.Subvolume(t.Context(), fs, name)
		pgtest.Check(t, err)
	}
	output, err = exec.Command("cp", "-a", filepath.Join(fs.Dir, "wal")+"/.", filepath.Join(data, "pg_wal")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	pgtest.Check(t, cluster.Start(t.Context()))
	pgtest.Load(t, cluster, pgtest.BenchOptions{})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	backup := tool.take()
	if len(backup.Volumes) != 2 || !backup.Volumes[0].Holds(snap.WALDirectory) {
		t.Errorf("volumes: %+v", backup.Volumes)
	}
	copy := tool.restore(backup.ID, filepath.Join(fs.Dir, "copy"))
	checkBalances(t, copy)
	copy.touchesNothingIn(t, data)
}

// TestEncoding: a database whose encoding is not UTF-8, and a cluster of which
// restore's latest passes over the lost ones.
func TestEncoding(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "15"), pgtest.Options{
		DataDir: lab.Path("site", "data"), InitdbArgs: []string{"--encoding=LATIN1"}, FreshIdentity: true,
	})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	backup := tool.take("--label", "größer")
	if backup.Label != "größer" {
		t.Errorf("label %q", backup.Label)
	}
	lost := tool.take()
	pgtest.Check(t, os.RemoveAll(lost.Snapshots[0].ID))
	copy := tool.restore("latest", lab.Path("copy"))
	if copy.Backup != backup.ID {
		t.Errorf("latest is %s, want %s", copy.Backup, backup.ID)
	}
	// A copy that was moved away is not taken apart.
	pgtest.Check(t, copy.Stop(t.Context(), pgtest.Fast))
	pgtest.Check(t, os.Rename(copy.DataDirectory, lab.Path("moved")))
	tool.fails(4, []string{"release --keep"}, "release", copy.Destination)
	tool.must(nil, "release", "--keep", copy.Destination)
	tool.fails(5, []string{"no copy"}, "release", copy.Destination)
	pgtest.Check(t, os.RemoveAll(copy.Destination))
}

// TestOwnFileSystem: a data directory that is a mount point would be copied in
// full to another file system, so the place must be named.
func TestOwnFileSystem(t *testing.T) {
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "xfs", 600)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "17"), pgtest.Options{DataDir: fs.Dir})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	tool.fails(4, []string{fs.Dir, "[storage.reflink]"}, "take")
	place, err := lab.Mkdir(lab.Path("snapshots"))
	pgtest.Check(t, err)
	text, err := os.ReadFile(tool.config)
	pgtest.Check(t, err)
	pgtest.Check(t, os.WriteFile(tool.config, fmt.Appendf(text, "[storage.reflink]\ndirectory = %q\n", place), 0o600))
	backup := tool.take()
	checkStarts(t, tool.restore(backup.ID, lab.Path("copy")))
}

func checkStarts(t *testing.T, copy restored) {
	t.Helper()
	if recovering := pgtest.Query(t, copy.Instance, "SELECT pg_is_in_recovery()::text"); recovering != "false" {
		t.Errorf("the copy is in recovery: %s", recovering)
	}
}

// TestLostSnapshot: a snapshot that somebody removed is seen by list and named by
// restore.
func TestLostSnapshot(t *testing.T) {
	s := newBtrfsSite(t, pgtest.NeedServer(t, "18"))
	tool := newTool(t, s.lab, s.cluster.DSN(), "btrfs")
	backup := tool.take()
	output, err := exec.Command("btrfs", "subvolume", "delete", backup.Snapshots[0].ID).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if listed := tool.list(); listed[0].Status != snap.Lost {
		t.Errorf("the backup is listed as %s", listed[0].Status)
	}
	tool.fails(4, []string{backup.ID, "lost"}, "restore", backup.ID, "--to", s.lab.Path("copy"))
	if _, err := os.Lstat(s.lab.Path("copy")); err == nil {
		t.Error("a destination is left behind")
	}
	tool.fails(4, []string{"not where they were made", "--lost"}, "delete", backup.ID)
	tool.must(nil, "delete", "--lost", backup.ID)
	checkNothingLeft(t, s, tool)
}

// TestTablespaceInWindow: one that comes, goes, or comes and goes during the
// backup makes it fail, since no copy could keep away from its original path.
func TestTablespaceInWindow(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "15"), pgtest.Options{DataDir: lab.Path("site", "data")})
	tool := newTool(t, lab, cluster.DSN(), "reflink")
	// A big file makes the window long enough to hit.
	big := filepath.Join(cluster.DataDir, "big")
	pgtest.Check(t, os.WriteFile(big, make([]byte, 1<<30), 0o600))
	pgtest.Check(t, lab.Own(big))
	cmd := tool.command("take")
	pgtest.Check(t, cmd.Start())
	pgtest.Eventually(t, 20*time.Second, func() error {
		if cuts, _ := filepath.Glob(lab.Path("site", ".pgsnap", "*", "data")); len(cuts) == 0 {
			return fmt.Errorf("the cut has not begun")
		}
		return nil
	})
	pgtest.Check(t, cluster.CreateTablespace(t.Context(), "brief", lab.Path("brief")))
	pgtest.Exec(t, cluster, "DROP TABLESPACE brief")
	if err := cmd.Wait(); err == nil {
		t.Error("the backup is called complete")
	}
	backups := tool.list()
	if len(backups) != 1 || backups[0].Status != snap.Failed || !strings.Contains(backups[0].Error, "tablespace was created or dropped") {
		t.Errorf("listed: %+v", backups[0])
	}
	pgtest.Check(t, os.Remove(big))
	tool.take()
}
