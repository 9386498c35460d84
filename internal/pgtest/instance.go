package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// Instance is a server that runs, or ran, on a data directory, whoever started it.
type Instance struct {
	DataDir   string
	SocketDir string
	Port      int
	User      string // the database's superuser
	Password  string // empty where the server does not ask

	account account // owner of the data directory
}

// Attach describes a server that somebody else started, such as a restored copy. It asks nothing of it.
func Attach(dataDir, socketDir string, port int, user string) (*Instance, error) {
	who, err := ownerOf(dataDir)
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", dataDir, err)
	}
	return &Instance{DataDir: dataDir, SocketDir: socketDir, Port: port, User: user, account: who}, nil
}

// ownerOf returns the account that owns a data directory, which is the one its server runs as.
func ownerOf(dir string) (account, error) {
	who, err := serverAccount()
	if err != nil {
		return account{}, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return account{}, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != who.uid {
		who = account{name: "#" + strconv.Itoa(int(stat.Uid)), uid: stat.Uid, gid: stat.Gid, change: os.Geteuid() == 0}
	}
	return who, nil
}

// DSN returns the connection string for the database postgres.
func (i *Instance) DSN() string { return i.DatabaseDSN("postgres") }

// DatabaseDSN returns the connection string for a database.
func (i *Instance) DatabaseDSN(database string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	dsn := fmt.Sprintf("host='%s' port=%d user='%s' dbname='%s' sslmode=disable",
		quote(i.SocketDir), i.Port, quote(i.User), quote(database))
	if i.Password != "" {
		dsn += fmt.Sprintf(" password='%s'", quote(i.Password))
	}
	return dsn
}

// Connect opens a connection to the database postgres. As root it connects as the owner of the data directory, so peer
// authentication works.
func (i *Instance) Connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(i.DSN())
	if err != nil {
		return nil, err
	}
	if i.account.change {
		config.DialFunc = i.account.dial
	}
	return pgx.ConnectConfig(ctx, config)
}

// dial connects to a Unix socket as the account: the server sees the effective user of the connecting thread.
func (a account) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result, 1)
	go func() {
		// Never unlocked: the thread with the other user ends with this goroutine and runs nothing else.
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(a.uid), keep); errno != 0 {
			dialled <- result{err: fmt.Errorf("become the user %s: %w", a.name, errno)}
			return
		}
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, network, address)
		dialled <- result{conn, err}
	}()
	r := <-dialled
	return r.conn, r.err
}

// Exec runs SQL on a connection of its own; without args it may be several statements, which then run in one transaction:
// CREATE TABLESPACE, VACUUM and the like must come alone.
func (i *Instance) Exec(ctx context.Context, sql string, args ...any) error {
	_, err := i.Query(ctx, sql, args...)
	return err
}

// Query runs SQL on a connection of its own and returns the first column of the first row as the server writes it; nothing for
// NULL and for no row.
func (i *Instance) Query(ctx context.Context, sql string, args ...any) (string, error) {
	conn, err := i.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(args) == 0 {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return "", fmt.Errorf("%s: %w", sql, err)
		}
		for _, result := range results {
			if len(result.Rows) > 0 && len(result.Rows[0]) > 0 {
				return string(result.Rows[0][0]), nil
			}
		}
		return "", nil
	}
	rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...)
	if err != nil {
		return "", fmt.Errorf("%s: %w", sql, err)
	}
	defer rows.Close()
	var value string
	if rows.Next() && len(rows.RawValues()) > 0 {
		value = string(rows.RawValues()[0])
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", sql, err)
	}
	return value, nil
}

// PID returns the postmaster's process id, or an error when no server runs on the data directory.
func (i *Instance) PID() (int, error) {
	process, err := findPostmaster(i.DataDir)
	if err != nil {
		return 0, err
	}
	return process.Pid, nil
}

// Running says whether a server runs on the data directory.
func (i *Instance) Running() bool {
	_, err := findPostmaster(i.DataDir)
	return err == nil
}

// StopMode is how a server is asked to stop, as in pg_ctl.
type StopMode string

// The three ways to stop.
const (
	Smart     StopMode = "smart"     // when the last client has gone
	Fast      StopMode = "fast"      // clients are thrown out, then a checkpoint
	Immediate StopMode = "immediate" // no checkpoint: the next start recovers
)

// patience is how long a start or a stop may take when the caller sets no deadline.
const patience = 2 * time.Minute

func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, patience)
}

// Stop stops the server and returns when it has ended. One that does not run is no error.
func (i *Instance) Stop(ctx context.Context, mode StopMode) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	signals := map[StopMode]os.Signal{Smart: syscall.SIGTERM, Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT}
	signal, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop %s: no mode %q", i.DataDir, mode)
	}
	process, err := findPostmaster(i.DataDir)
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err == nil {
		err = process.Signal(signal)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err == nil {
		err = waitEnded(ctx, process)
	}
	if err != nil {
		return fmt.Errorf("stop %s (%s): %w", i.DataDir, mode, err)
	}
	return nil
}

// Crash kills the postmaster without warning (kill -9) and returns when its children are gone too. postmaster.pid stays.
func (i *Instance) Crash(ctx context.Context) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	process, err := findPostmaster(i.DataDir)
	if err == nil {
		err = kill(ctx, process)
	}
	if err != nil {
		return fmt.Errorf("crash %s: %w", i.DataDir, err)
	}
	return nil
}

// clientArgs are the arguments by which the distribution's client tools find the server.
func (i *Instance) clientArgs() []string {
	return []string{"-h", i.SocketDir, "-p", strconv.Itoa(i.Port), "-U", i.User}
}

// tail returns the last lines of a log.
func tail(path string, lines int) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	const most = 1 << 16
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(file)
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// configPath is the main configuration file of a cluster made here.
func (i *Instance) configPath() string { return filepath.Join(i.DataDir, "postgresql.conf") }
