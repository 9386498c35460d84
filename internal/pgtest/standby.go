package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// NewStandby makes a standby of a running primary by a file copy in backup mode, starts it and returns when it streams and accepts
// read-only queries. pg_wal and the tablespaces of the copy lie in directories of its own. It leaves no replication slot on the
// primary.
func (l *Lab) NewStandby(ctx context.Context, primary *Cluster) (*Cluster, error) {
	name := l.next("standby")
	dir := l.Path(name, "data")
	conn, err := primary.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("standby of %s: %w", primary.DataDir, err)
	}
	// The slot is temporary: it holds the WAL until the standby streams, and ends with this connection.
	defer conn.Close(context.WithoutCancel(ctx))
	if err := l.copyRunning(ctx, conn, primary, dir, name); err != nil {
		return nil, fmt.Errorf("standby of %s: %w", primary.DataDir, err)
	}
	standby, err := l.Adopt(primary.Server, dir)
	if err != nil {
		return nil, err
	}
	standby.Password = primary.Password
	if err := standby.follow(primary, name); err != nil {
		return nil, fmt.Errorf("standby of %s: %w", primary.DataDir, err)
	}
	if err := standby.Start(ctx); err != nil {
		return nil, err
	}
	err = waitFor(ctx, time.Minute, func() error {
		var streams bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')",
			name).Scan(&streams)
		if err == nil && !streams {
			err = errors.New("it does not stream")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("standby %s: %w\n%s", dir, err, tail(standby.LogFile, 15))
	}
	return standby, nil
}

// copyRunning copies a running cluster in backup mode, with its backup label.
func (l *Lab) copyRunning(ctx context.Context, conn *pgx.Conn, primary *Cluster, dir, name string) error {
	start, stop := "SELECT pg_start_backup($1, true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	const renamed = 15
	if primary.Server.Major >= renamed {
		start, stop = "SELECT pg_backup_start($1, true)", "SELECT labelfile FROM pg_backup_stop(false)"
	}
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true, true)", name); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, start, name); err != nil {
		return err
	}
	if _, err := l.Mkdir(dir); err != nil {
		return err
	}
	if err := l.copyFiles(ctx, primary.DataDir, dir); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	// The tablespace map is left out: the copy's links are right already.
	return l.writeFile(filepath.Join(dir, "backup_label"), label)
}

// copyFiles copies a data directory, and what its symbolic links to pg_wal and the tablespaces lead to into directories beside the
// copy, so that the two share nothing.
func (l *Lab) copyFiles(ctx context.Context, from, to string) error {
	if err := copyChanging(ctx, from, to); err != nil {
		return err
	}
	links, err := filepath.Glob(filepath.Join(to, "pg_tblspc", "*"))
	if err != nil {
		return err
	}
	for _, link := range append(links, filepath.Join(to, "pg_wal")) {
		target, err := os.Readlink(link)
		if err != nil {
			continue // a plain directory, copied already
		}
		own, err := l.Mkdir(filepath.Join(filepath.Dir(to), filepath.Base(link)))
		if err != nil {
			return err
		}
		if err := copyChanging(ctx, target, own); err != nil {
			return err
		}
		if err := errors.Join(os.Remove(link), os.Symlink(own, link), l.account.own(link)); err != nil {
			return err
		}
	}
	for _, name := range []string{"postmaster.pid", "postmaster.opts"} {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return err
		}
	}
	slots, err := filepath.Glob(filepath.Join(to, "pg_replslot", "*"))
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if err := os.RemoveAll(slot); err != nil {
			return err
		}
	}
	return nil
}

// CopyStopped copies a stopped cluster with its WAL and tablespaces, which share nothing with the original's, and returns the copy,
// not started. It has the original's system identifier.
func (l *Lab) CopyStopped(ctx context.Context, original *Cluster) (*Cluster, error) {
	if original.Running() {
		return nil, fmt.Errorf("copy %s: its server runs", original.DataDir)
	}
	dir, err := l.Mkdir(filepath.Join(l.next("copy"), "data"))
	if err != nil {
		return nil, err
	}
	if err := l.copyFiles(ctx, original.DataDir, dir); err != nil {
		return nil, fmt.Errorf("copy %s: %w", original.DataDir, err)
	}
	cluster, err := l.Adopt(original.Server, dir)
	if err != nil {
		return nil, err
	}
	cluster.Password = original.Password
	return cluster, nil
}

// follow makes the cluster a standby of primary from its next start.
func (c *Cluster) follow(primary *Cluster, name string) error {
	conninfo := primary.DatabaseDSN("") + " application_name=" + name
	const signalFiles = 12
	if c.Server.Major < signalFiles {
		return c.lab.writeFile(filepath.Join(c.DataDir, "recovery.conf"), formatSettings(map[string]string{
			"standby_mode": "on", "primary_conninfo": conninfo, "recovery_target_timeline": "latest",
		}))
	}
	return errors.Join(
		c.Configure(map[string]string{"primary_conninfo": conninfo}),
		c.lab.writeFile(filepath.Join(c.DataDir, "standby.signal"), ""),
	)
}

func (l *Lab) writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return l.account.own(path)
}

// copyChanging copies a directory in which a server is at work: a file that vanishes meanwhile is no error.
func copyChanging(ctx context.Context, from, to string) error {
	cmd := copyCommand(ctx, from, to)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	output, err := run(cmd)
	if err == nil {
		return nil
	}
	for line := range strings.Lines(output) {
		if !strings.HasSuffix(strings.TrimSpace(line), ": No such file or directory") {
			return err
		}
	}
	if output == "" {
		return err
	}
	return nil
}
