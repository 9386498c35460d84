package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pgsnap/internal/pgtest"
)

// stopGrace is how long a pgsnap that was interrupted may undo its work.
const stopGrace = 30 * time.Second

// tool is pgsnap, as people run it.
type tool struct {
	*site
	program string
	config  string
	copy    string
	backup  string // id of the last one taken
}

func newTool(s *site, program string) (*tool, error) {
	t := &tool{site: s, program: program, config: filepath.Join(s.dir, "pgsnap.toml"), copy: filepath.Join(s.fs.Dir, "pgsnap-copy")}
	text := fmt.Sprintf("catalog = %q\n[cluster.bench]\ndsn = %q\n", filepath.Join(s.dir, "catalog"), s.cluster.DSN())
	return t, os.WriteFile(t.config, []byte(text), 0o600)
}

// used is what a process needed in all.
type used struct {
	time time.Duration
	peak int64 // bytes of memory
}

// run runs a command and reads what it prints as JSON.
func (t *tool) run(ctx context.Context, result any, args ...string) (used, error) {
	cmd := command(ctx, t.program, append([]string{"--config", t.config, "--json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopGrace
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	u := used{time: time.Since(began)}
	if err != nil {
		return u, failure(cmd, err, stderr.String())
	}
	// The greatest of the process and its children. The kernel counts our own size
	// at the fork too, so what it says is at worst too much.
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peak = usage.Maxrss << 10
	}
	if err := json.Unmarshal([]byte(stdout.String()), result); err != nil {
		return u, fmt.Errorf("pgsnap %s: %w", args[0], err)
	}
	return u, nil
}

func (t *tool) take(ctx context.Context) (taken, error) {
	var backup struct {
		ID      string             `json:"id"`
		Seconds map[string]float64 `json:"seconds"`
	}
	u, err := t.run(ctx, &backup, "take")
	t.backup = backup.ID
	window := time.Duration(backup.Seconds["backup_mode"] * float64(time.Second))
	if err == nil && window <= 0 {
		err = fmt.Errorf("pgsnap take --json says no seconds.backup_mode: %v", backup.Seconds)
	}
	return taken{window: window, total: u.time, phases: backup.Seconds, peak: u.peak}, err
}

// copied is what restore prints.
type copied struct {
	DataDirectory   string             `json:"data_directory"`
	SocketDirectory string             `json:"socket_directory"`
	Port            int                `json:"port"`
	Seconds         map[string]float64 `json:"seconds"`
}

func (t *tool) restore(ctx context.Context) (restored, error) {
	var made copied
	u, err := t.run(ctx, &made, "restore", t.backup, "--to", t.copy, "--start")
	if err != nil {
		return restored{}, err
	}
	instance, err := pgtest.Attach(made.DataDirectory, made.SocketDirectory, made.Port, "postgres")
	if err != nil {
		return restored{}, err
	}
	recovering, err := instance.Query(ctx, "SELECT pg_is_in_recovery()")
	if err == nil && recovering != "f" {
		err = fmt.Errorf("pgsnap restore returned while its copy was in recovery")
	}
	return restored{total: u.time, phases: made.Seconds, peak: u.peak}, err
}

func (t *tool) remove(ctx context.Context) error {
	instance, err := pgtest.Attach(filepath.Join(t.copy, "data"), "", 0, "postgres")
	if err != nil {
		return err
	}
	if err := instance.Stop(ctx, pgtest.Immediate); err != nil {
		return err
	}
	var ignored any
	if _, err := t.run(ctx, &ignored, "release", t.copy); err != nil {
		return err
	}
	_, err = t.run(ctx, &ignored, "delete", t.backup)
	return err
}
