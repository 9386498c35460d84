package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a database cluster of the lab and the server that runs it.
type Cluster struct {
	*Instance
	Server     Server
	WALDir     string // where pg_wal's symbolic link leads, empty if pg_wal is a directory
	ArchiveDir string // where WAL is archived, empty without Options.Archive
	LogFile    string

	lab *Lab
}

// NewCluster makes a cluster. It is not started.
func (l *Lab) NewCluster(ctx context.Context, server Server, o Options) (*Cluster, error) {
	name := l.next("c")
	if o.DataDir == "" {
		o.DataDir = l.Path(name, "data")
	}
	if err := l.fill(ctx, server, o); err != nil {
		return nil, fmt.Errorf("make cluster %s of PostgreSQL %s: %w", o.DataDir, server, err)
	}
	archive := ""
	if o.Archive {
		var err error
		if archive, err = l.Mkdir(filepath.Join(name, "archive")); err != nil {
			return nil, fmt.Errorf("archive directory: %w", err)
		}
	}
	if err := appendTo(filepath.Join(o.DataDir, "postgresql.conf"), "\n# of the tests\n"+o.settings(archive)); err != nil {
		return nil, err
	}
	cluster, err := l.adopt(server, o.DataDir, o.Listen)
	if err != nil {
		return nil, err
	}
	cluster.Password, cluster.ArchiveDir = o.Password, archive
	return cluster, nil
}

// fill puts a new cluster's files into the data directory.
func (l *Lab) fill(ctx context.Context, server Server, o Options) error {
	if entries, err := os.ReadDir(o.DataDir); err == nil && len(entries) > 0 {
		return errors.New("the directory is not empty")
	}
	if o.FreshIdentity {
		if err := l.initdb(ctx, server, o.DataDir, o); err != nil {
			return err
		}
	} else {
		if _, err := l.Mkdir(o.DataDir); err != nil {
			return err
		}
		template, err := l.template(ctx, server, o)
		if err != nil {
			return err
		}
		if err := copyTree(ctx, template, o.DataDir); err != nil {
			return err
		}
	}
	if o.WALDir == "" {
		return nil
	}
	if _, err := l.Mkdir(o.WALDir); err != nil {
		return err
	}
	pgWAL := filepath.Join(o.DataDir, "pg_wal")
	if err := copyTree(ctx, pgWAL, o.WALDir); err != nil {
		return err
	}
	if err := os.RemoveAll(pgWAL); err != nil {
		return err
	}
	return errors.Join(os.Symlink(o.WALDir, pgWAL), l.account.own(pgWAL))
}

// Adopt takes a data directory that exists, such as a copy of another cluster's, as a cluster of the lab: it gets a socket directory
// and a port of its own at the end of its postgresql.conf, and loses a stale postmaster.pid. It is not started.
func (l *Lab) Adopt(server Server, dataDir string) (*Cluster, error) {
	return l.adopt(server, dataDir, false)
}

func (l *Lab) adopt(server Server, dataDir string, listen bool) (*Cluster, error) {
	who, err := ownerOf(dataDir)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", dataDir, err)
	}
	cluster := &Cluster{
		Instance: &Instance{DataDir: dataDir, User: "postgres", account: who},
		Server:   server, LogFile: l.Path(l.next("server") + ".log"), lab: l,
	}
	if _, err := findPostmaster(dataDir); err == nil {
		return nil, fmt.Errorf("adopt %s: a server runs on it", dataDir)
	}
	if err := os.Remove(filepath.Join(dataDir, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	if cluster.WALDir, err = os.Readlink(filepath.Join(dataDir, "pg_wal")); err != nil &&
		!errors.Is(err, syscall.EINVAL) && !errors.Is(err, os.ErrNotExist) { // a directory, or left out of the copy
		return nil, fmt.Errorf("adopt: %w", err)
	}
	if cluster.SocketDir, err = l.SocketDir(); err != nil {
		return nil, err
	}
	if cluster.Port, err = freePort(); err != nil {
		return nil, err
	}
	settings := map[string]string{
		// A list of names, of which each may be quoted.
		"unix_socket_directories": `"` + cluster.SocketDir + `"`,
		"port":                    strconv.Itoa(cluster.Port),
		"listen_addresses":        "",
	}
	if listen {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if err := appendTo(cluster.configPath(), formatSettings(settings)); err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	l.addLog(cluster.LogFile)
	l.Defer("stop "+dataDir, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return cluster.Stop(ctx, Immediate)
	})
	return cluster, nil
}

// Configure adds settings at the end of postgresql.conf. They count from the next start or reload.
func (c *Cluster) Configure(settings map[string]string) error {
	return appendTo(c.configPath(), formatSettings(settings))
}

// Start starts the server and returns when it accepts connections. A server that ends instead is an error with the end of its log.
func (c *Cluster) Start(ctx context.Context) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	if c.Running() {
		return fmt.Errorf("start %s: a server runs on it already", c.DataDir)
	}
	log, err := os.OpenFile(c.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not under ctx, which ends with the start. SIGQUIT is an immediate shutdown.
	cmd := c.account.command(context.Background(), c.lab.dir, c.Server.Bin("postgres"), "-D", c.DataDir)
	cmd.Stdout, cmd.Stderr = log, log
	server, err := startChild(cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	for {
		file, err := readPostmasterFile(c.DataDir)
		if err == nil && file.pid == cmd.Process.Pid && file.status == "ready" {
			return nil
		}
		select {
		case <-server.done:
			return fmt.Errorf("start %s of PostgreSQL %s: the server ended: %w\n%s", c.DataDir, c.Server, server.err, tail(c.LogFile, 15))
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGQUIT)
			<-server.done
			return fmt.Errorf("start %s of PostgreSQL %s: not ready: %w\n%s", c.DataDir, c.Server, context.Cause(ctx), tail(c.LogFile, 15))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Restart stops the server, if it runs, and starts it.
func (c *Cluster) Restart(ctx context.Context, mode StopMode) error {
	if err := c.Stop(ctx, mode); err != nil {
		return err
	}
	return c.Start(ctx)
}

// CreateTablespace makes a tablespace in dir, which is made and may hold spaces, backslashes and double quotes in its name; the
// server refuses single quotes.
func (c *Cluster) CreateTablespace(ctx context.Context, name, dir string) error {
	dir, err := c.lab.Mkdir(dir)
	if err != nil {
		return fmt.Errorf("tablespace %s: %w", name, err)
	}
	conn, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	literal, err := conn.PgConn().EscapeString(dir)
	if err != nil {
		return fmt.Errorf("tablespace %s: directory %q: %w", name, dir, err)
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", pgx.Identifier{name}.Sanitize(), literal)); err != nil {
		return fmt.Errorf("tablespace %s in %s: %w", name, dir, err)
	}
	return nil
}

// freePort returns a TCP port that nobody uses just now.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: %v is no TCP address", listener.Addr())
	}
	return address.Port, nil
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
