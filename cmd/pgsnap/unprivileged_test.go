package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/restore"
	"pgsnap/internal/snap"
)

// TestUnprivileged: the server's own user takes and restores, without root, on
// any directory.
func TestUnprivileged(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "18"), pgtest.Options{DataDir: lab.Path("site", "data")})
	pgtest.Check(t, lab.Own(lab.Path("site")))
	pgtest.Load(t, cluster, pgtest.BenchOptions{})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	// The user can't reach where tests are built.
	program := lab.Path("pgsnap")
	content, err := os.ReadFile(os.Args[0])
	pgtest.Check(t, err)
	pgtest.Check(t, os.WriteFile(program, content, 0o755))
	home, err := lab.Mkdir(lab.Path("home"))
	pgtest.Check(t, err)
	pgtest.Check(t, os.Chmod(filepath.Dir(tool.config), 0o755))
	run := func(into any, args ...string) {
		t.Helper()
		cmd := lab.Command(t.Context(), program, append(args, "--json", "--config", tool.config, "--catalog", filepath.Join(home, "catalog"))...)
		cmd.Env = append(cmd.Env, asProgram+"=1")
		output, err := cmd.Output()
		if err != nil {
			t.Fatalf("pgsnap %v: %v", args, err)
		}
		pgtest.Check(t, json.Unmarshal(output, into))
	}
	backup := new(snap.Backup)
	run(backup, "take")
	result := new(restore.Result)
	run(result, "restore", backup.ID, "--to", filepath.Join(home, "copy"), "--start")
	instance, err := pgtest.Attach(result.DataDirectory, result.SocketDirectory, result.Port, "postgres")
	pgtest.Check(t, err)
	checkBalances(t, restored{result, instance})
	pgtest.Check(t, instance.Stop(t.Context(), pgtest.Fast))
	run(new(any), "release", result.Destination)
	run(new(any), "delete", backup.ID)
	if left := everything(t, lab.Path("site")); strings.Contains(left, ".pgsnap") {
		t.Errorf("left: %s", left)
	}

	t.Run("another user", func(t *testing.T) {
		// Somebody who may connect, but can't read the data directory.
		cmd := lab.Command(t.Context(), program, "take", "--config", tool.config, "--catalog", filepath.Join(home, "catalog"))
		cmd.Env = append(cmd.Env, asProgram+"=1")
		cmd.SysProcAttr.Credential.Uid, cmd.SysProcAttr.Credential.Gid = 65534, 65534
		output, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 4 {
			t.Errorf("exit %d: %s", code, output)
		}
	})
}
