package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgsnap/internal/pgtest"
)

const (
	// benchScale is pgbench's, the same for every size: with larger tables a
	// checkpoint would have more to write, whatever a snapshot costs.
	benchScale = 10
	benchBytes = 160e6
	pageSize   = 8192
)

// site is a cluster of a wanted size on a Btrfs of its own: its data directory is
// a subvolume, pg_wal lies in it.
type site struct {
	lab     *pgtest.Lab
	fs      *pgtest.FS
	cluster *pgtest.Cluster
	gb      float64 // the wanted size
	dir     string  // for what is kept elsewhere than on the Btrfs
}

func newSite(ctx context.Context, lab *pgtest.Lab, server pgtest.Server, size float64) (*site, error) {
	dir, err := lab.Mkdir(fmt.Sprintf("site-%g", size))
	if err != nil {
		return nil, err
	}
	// Sparse: twice, for any may be the one that pg_basebackup copies.
	fs, err := lab.LoopFS(ctx, "btrfs", int((2*size*gigabyte+spare)/(1<<20)))
	if err != nil {
		return nil, err
	}
	data, err := lab.Subvolume(ctx, fs, "data")
	if err != nil {
		return nil, err
	}
	s := &site{lab: lab, fs: fs, gb: size, dir: dir}
	s.cluster, err = lab.NewCluster(ctx, server, pgtest.Options{
		DataDir: data, Fsync: true, Settings: map[string]string{
			"shared_buffers": "128MB",
			// Checkpoints come when a backup begins and when they are asked for.
			"checkpoint_timeout": "1h", "max_wal_size": "2GB",
			// Old segments are used again rather than made anew, now and then, by
			// whichever backup finds none.
			"min_wal_size": "1GB",
			// A table that is filled by the transaction that made it then needs no WAL.
			"wal_level": "minimal", "max_wal_senders": "0",
		},
	})
	if err != nil {
		return nil, err
	}
	if err := s.cluster.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.fill(ctx, size*gigabyte-benchBytes); err != nil {
		return nil, fmt.Errorf("fill the cluster: %w", err)
	}
	if err := s.cluster.Configure(map[string]string{"wal_level": "replica", "max_wal_senders": "10"}); err != nil {
		return nil, err
	}
	if err := s.cluster.Restart(ctx, pgtest.Fast); err != nil {
		return nil, err
	}
	return s, pgtest.InitBench(ctx, s.cluster.Instance, pgtest.BenchOptions{Scale: benchScale})
}

// fill makes a table of about a size, with one row a page. COPY writes a page
// soon after it has extended the file by it, so that Btrfs makes one extent of
// both; after INSERT the disk holds nearly everything twice.
func (s *site) fill(ctx context.Context, bytes float64) error {
	return s.cluster.Exec(ctx, fmt.Sprintf(`
		CREATE TABLE filler (page text) WITH (autovacuum_enabled = off);
		ALTER TABLE filler ALTER page SET STORAGE PLAIN;
		COPY filler FROM PROGRAM 'yes "$(printf %%08000d 0)" | head -n %.0f'`, bytes/pageSize))
}

// size is that of all databases.
func (s *site) size(ctx context.Context) (int64, error) {
	text, err := s.cluster.Query(ctx, "SELECT sum(pg_database_size(oid)) FROM pg_database")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// settle brings server and file system to where nothing of what was done before
// is still to be done.
func (s *site) settle(ctx context.Context, load bool) error {
	for _, args := range [][]string{
		{"filesystem", "sync", s.fs.Dir}, // which also wakes the cleaner of deleted subvolumes
		{"subvolume", "sync", s.fs.Dir},
	} {
		if err := btrfs(ctx, args...); err != nil {
			return err
		}
	}
	if err := s.cluster.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if !load {
		return nil
	}
	// The next checkpoint then has a second's changes to write, beside which the
	// time that a program takes to start does not count.
	return pause(ctx, time.Second)
}

// baseBackup is how long pg_basebackup takes to copy the cluster on the same file
// system, in seconds.
func (s *site) baseBackup(ctx context.Context) (float64, error) {
	program, err := pgtest.Tool("pg_basebackup")
	if err != nil {
		return 0, err
	}
	if err := s.settle(ctx, false); err != nil {
		return 0, err
	}
	began := time.Now()
	err = runCommand(s.lab.Command(ctx, program, "--dbname="+s.cluster.DSN(), "--pgdata="+filepath.Join(s.fs.Dir, "base"), "--checkpoint=fast"))
	return time.Since(began).Seconds(), err
}

func btrfs(ctx context.Context, args ...string) error {
	return runCommand(command(ctx, "btrfs", args...))
}

// command prepares a program that hears nothing of the caller's own settings for
// pgsnap and PostgreSQL.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	return cmd
}

// runCommand runs a program to its end; its error says what the program said.
func runCommand(cmd *exec.Cmd) error {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	return failure(cmd, cmd.Run(), stderr.String())
}

func failure(cmd *exec.Cmd, err error, said string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said))
}

func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(length):
		return nil
	}
}
