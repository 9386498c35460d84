package pgctl

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
)

const secret = "hunter2"

// TestPeer connects as root where pg_hba.conf has nothing but "local all all
// peer": the server sees the account named like the database user, and nothing
// else of the process becomes that account.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	cluster := pgtest.Start(t, pgtest.New(t), pgtest.NeedServer(t, "18"), pgtest.Options{Auth: "peer"})
	for name, dsn := range map[string]string{
		"user named":    cluster.DSN(),
		"user left out": fmt.Sprintf("host=%s port=%d", cluster.SocketDir, cluster.Port),
		"address":       fmt.Sprintf("postgresql:///?host=%s&port=%d", cluster.SocketDir, cluster.Port),
	} {
		server, err := Connect(t.Context(), dsn)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if who := ask(t, server, "SELECT session_user, current_user, current_database()"); who != "postgres|postgres|postgres" {
			t.Errorf("%s: connected as %s", name, who)
		}
		server.Close()
	}
	// A user without an account is refused, and the error says what is needed.
	_, err := Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=nobody_here", cluster.SocketDir, cluster.Port))
	if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "pg_hba.conf") {
		t.Errorf("a user without an account: %v (%s)", err, fault.HintOf(err))
	}
	// One who is named stays so, even as root.
	_, err = Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=root", cluster.SocketDir, cluster.Port))
	if err == nil || !strings.Contains(err.Error(), "user=root") {
		t.Errorf("user=root: %v", err)
	}

	stop := make(chan struct{})
	var watchers, connectors sync.WaitGroup
	for range 4 {
		watchers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if euid, egid := syscall.Geteuid(), syscall.Getegid(); euid != 0 || egid != 0 {
					t.Errorf("another goroutine is user %d of group %d", euid, egid)
					return
				}
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	for range 8 {
		connectors.Go(func() {
			for range 4 {
				server, err := Connect(t.Context(), cluster.DSN())
				if err != nil {
					t.Error(err)
					return
				}
				server.Close()
			}
		})
	}
	connectors.Wait()
	close(stop)
	watchers.Wait()
	assertAllThreadsRoot(t)
}

// assertAllThreadsRoot waits for the threads that became somebody else to end. It
// looks at their group, since pgtest's own threads change their user alone.
func assertAllThreadsRoot(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, 10*time.Second, func() error {
		threads, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil {
			return err
		}
		for _, thread := range threads {
			status, err := os.ReadFile(thread)
			if err != nil {
				continue // ended
			}
			for line := range strings.Lines(string(status)) {
				if fields := strings.Fields(line); fields[0] == "Gid:" && strings.Join(fields[1:], " ") != "0 0 0 0" {
					return fmt.Errorf("%s: %s", thread, line)
				}
			}
		}
		return nil
	})
}

func TestAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	nobody := account{65534, 65534}
	var inside string
	err := nobody.do(func() error {
		groups, err := os.Getgroups()
		inside = fmt.Sprint(syscall.Geteuid(), " ", syscall.Getegid(), " ", groups)
		if _, openErr := os.Open("/etc/shadow"); !os.IsPermission(openErr) {
			t.Errorf("it can open what root can: %v", openErr)
		}
		return err
	})
	if err != nil || inside != "65534 65534 []" {
		t.Errorf("inside it is %q (%v)", inside, err)
	}
	if err := nobody.do(func() error { return syscall.ENOSPC }); err != syscall.ENOSPC {
		t.Errorf("the work's error comes back as %v", err)
	}
	// The main thread would stay what it has become, and so would the process in
	// the eyes of others.
	var many sync.WaitGroup
	for range 2000 {
		many.Go(func() {
			err := nobody.do(func() error {
				if unix.Gettid() == os.Getpid() {
					t.Error("the main thread became somebody else")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	many.Wait()
	assertAllThreadsRoot(t)
	for user, want := range map[string]bool{"postgres": true, "root": false, "nobody_here": false, "": false} {
		if _, found := peerAccount(user); found != want {
			t.Errorf("the account of %q: %v", user, found)
		}
	}
}

func TestUserNamed(t *testing.T) {
	t.Setenv("PGUSER", "")
	t.Setenv("PGSERVICE", "")
	for dsn, want := range map[string]bool{
		"":                              false,
		"host=/tmp port=5433":           false,
		"host=/tmp password=a@b":        false,
		"host=/srv/user/x dbname=users": false,
		"user=root":                     true,
		"host=/tmp user = 'root'":       true,
		"service=mine":                  true,
		"postgresql:///db?host=/tmp":    false,
		"postgresql:///db?host=/tmp&password=a@b": false,
		"postgresql:///db?user=root&host=/tmp":    true,
		"postgres://root@/db":                     true,
		"postgresql://root:x@host/db":             true,
	} {
		if got := namesUser(dsn); got != want {
			t.Errorf("%q names a user: %v", dsn, got)
		}
	}
	t.Setenv("PGUSER", "me")
	if !namesUser("") {
		t.Error("PGUSER does not count")
	}
}

func TestWrongPassword(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.New(t), pgtest.NeedServer(t, "18"), pgtest.Options{Auth: "scram-sha-256", Password: "right"})
	socket := fmt.Sprintf("host=%s port=%d user=postgres", cluster.SocketDir, cluster.Port)
	server, err := Connect(t.Context(), socket+" password=right")
	pgtest.Check(t, err)
	server.Close()
	t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "none"))
	for name, dsn := range map[string]string{
		"wrong":            socket + " password=" + secret,
		"none":             socket,
		"wrong in address": fmt.Sprintf("postgresql://postgres:%s@/?host=%s&port=%d", secret, cluster.SocketDir, cluster.Port),
	} {
		_, err := Connect(t.Context(), dsn)
		if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), ".pgpass") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v (%s)", name, err, fault.HintOf(err))
		}
	}
}

// TestNoServer: nobody is there, in the ways in which people meet it.
func TestNoServer(t *testing.T) {
	dir, err := pgtest.New(t).SocketDir()
	pgtest.Check(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Check(t, err)
	free := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	pgtest.Check(t, listener.Close())
	dead, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	pgtest.Check(t, err)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	pgtest.Check(t, dead.Close())
	pgtest.Check(t, os.Chmod(dead.Addr().String(), 0o777))
	for name, dsn := range map[string]string{
		"no socket":       "host=" + dir + "/none",
		"socket of dead":  "host=" + dir,
		"nobody listens":  "host=127.0.0.1 port=" + free,
		"unknown service": "host=" + dir + " port=5433 dbname=x",
	} {
		_, err := Connect(t.Context(), dsn+" user=postgres password="+secret)
		if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "is the server running") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v (%s)", name, err, fault.HintOf(err))
		}
	}
}

func testStopped(t *testing.T, cluster *pgtest.Cluster) {
	_, err := Connect(t.Context(), cluster.DSN())
	if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "is the server running") {
		t.Errorf("error is %v (%s)", err, fault.HintOf(err))
	}
	if running, err := Running(cluster.DataDir); err != nil || running {
		t.Errorf("it runs: %v, %v", running, err)
	}
}

// The server's data directory must be here: a dsn may lead to another host, or
// through a tunnel.
func TestOtherHost(t *testing.T) {
	dir := t.TempDir()
	here := Server{Facts: Facts{DataDirectory: dir, SystemIdentifier: 42}}
	assertRefused := func() {
		t.Helper()
		err := here.checkHost()
		if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "host") || !strings.Contains(fmt.Sprint(err), dir) {
			t.Errorf("error is %v (%s)", err, fault.HintOf(err))
		}
	}
	assertRefused() // there is nothing
	pgtest.Check(t, os.Mkdir(filepath.Join(dir, "global"), 0o700))
	control := filepath.Join(dir, "global", "pg_control")
	pgtest.Check(t, os.WriteFile(control, syntheticControlFile(43, 1), 0o600))
	assertRefused() // there is another
	pgtest.Check(t, os.WriteFile(control, syntheticControlFile(42, 1), 0o600))
	pgtest.Check(t, here.checkHost())
}

// testWeakUser: a user who may not read where the data directory is.
func testWeakUser(t *testing.T, cluster *pgtest.Cluster) {
	write(t, cluster, "CREATE ROLE weak LOGIN REPLICATION", "CREATE ROLE reader LOGIN IN ROLE pg_read_all_settings")
	as := func(user string) string {
		return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", cluster.SocketDir, cluster.Port, user)
	}
	_, err := Connect(t.Context(), as("weak"))
	if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "pg_read_all_settings") {
		t.Errorf("weak: %v (%s)", err, fault.HintOf(err))
	}
	// This one can connect, and needs the backup functions too.
	server, err := Connect(t.Context(), as("reader"))
	pgtest.Check(t, err)
	defer server.Close()
	if len(server.Facts.ConfigFiles) != 3 {
		t.Errorf("configuration files %q", server.Facts.ConfigFiles)
	}
	_, err = server.StartBackup(t.Context(), options(Auto))
	if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "EXECUTE") {
		t.Errorf("reader: %v (%s)", err, fault.HintOf(err))
	}
	write(t, cluster, "GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO reader")
	granted, err := Connect(t.Context(), as("reader"))
	pgtest.Check(t, err)
	defer granted.Close()
	backup := start(t, granted, Auto)
	if _, _, err := backup.Stop(t.Context()); err != nil || !strings.Contains(backup.Warning, "slot") {
		t.Errorf("granted: %v, warning %q", err, backup.Warning)
	}
}

// A connection string that makes no sense is not repeated: there may be a
// password in it, and what is one can't be told for sure.
func TestWrongDSN(t *testing.T) {
	for _, dsn := range []string{
		"host=/tmp port=abc password=" + secret,
		"host=/tmp port=abc password = " + secret,
		"host=/tmp port=abc password = 'x " + secret + "'",
		`host=/tmp port=abc password='x\' ` + secret + "'",
		`host=/tmp port=abc password=x\ ` + secret,
		"host=/tmp password='x " + secret,
		"host=/tmp password=x " + secret,
		"host=/tmp port=abc sslpassword = " + secret,
		"postgresql://u:" + secret + "@/db?port=abc",
		"postgresql://u:x/" + secret + "@h:abc/db",
		"postgresql://u:x@" + secret + "@h:abc/db",
		"postgresql://u:%zz" + secret + "@h/db",
		"postgresql://h/db?password=" + secret + "&sslmode=nonsense",
		"postgresql://h/db?passw%6frd=" + secret + "&port=`: x",
		"host=/tmp port='`: " + secret + "'",
		"host=/tmp statement_cache_capacity=x password = " + secret,
		"host=/tmp servicefile=/none service=x password = " + secret,
		"postgres;//u:" + secret + "@h/db",
		secret,
	} {
		_, err := Connect(t.Context(), dsn)
		if fault.KindOf(err) != fault.Usage || !strings.Contains(fault.HintOf(err), "dsn") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v (%s)", dsn, err, fault.HintOf(err))
		}
	}
}
