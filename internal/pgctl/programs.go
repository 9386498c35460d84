package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgsnap/internal/command"
	"pgsnap/internal/fault"
)

// Programs finds the directory with pg_ctl and postgres of a major version:
// where the cluster's own server ran from, then where Debian, Red Hat and
// PostgreSQL's own make install put them, then the search path.
func Programs(ctx context.Context, major int, own string) (string, error) {
	candidates := []string{
		own,
		fmt.Sprintf("/usr/lib/postgresql/%d/bin", major),
		fmt.Sprintf("/usr/pgsql-%d/bin", major),
		"/usr/local/pgsql/bin",
	}
	candidates = append(candidates, filepath.SplitList(os.Getenv("PATH"))...)
	for _, dir := range candidates {
		if dir == "" || !isProgram(filepath.Join(dir, "pg_ctl")) {
			continue
		}
		said, err := command.Run(ctx, []string{filepath.Join(dir, "postgres"), "--version"})
		if err == nil && majorOf(string(said)) == major {
			return dir, nil
		}
	}
	return "", fault.New(fault.Server, fmt.Sprintf("install PostgreSQL %d, or set bin_directory for the cluster", major),
		"no PostgreSQL %d (pg_ctl and postgres) was found on this host", major)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// majorOf reads "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func majorOf(said string) int {
	_, version, _ := strings.Cut(said, "(PostgreSQL) ")
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(version)
	}
	major, _ := strconv.Atoi(version[:digits]) // 0 is no version
	return major
}

// StartOptions are how a restored copy's server is started.
type StartOptions struct {
	BinDirectory  string
	DataDirectory string
	// Log takes what the server prints.
	Log string
	// Timeout is how long recovery may take until connections are accepted.
	Timeout time.Duration
	// Waiting is called from time to time while the server recovers.
	Waiting func()
}

const (
	pollEvery = 20 * time.Millisecond
	logLines  = 15
)

// StartServer starts a server as the owner of its data directory and waits
// until it has left recovery and accepts connections.
func StartServer(ctx context.Context, options StartOptions) (Postmaster, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, options.Timeout,
		fmt.Errorf("the server was not ready within %s", options.Timeout))
	defer cancel()
	args := []string{
		filepath.Join(options.BinDirectory, "pg_ctl"), "start", "--silent", "--wait",
		"--timeout=" + strconv.Itoa(int(options.Timeout.Seconds())),
		"--pgdata=" + options.DataDirectory, "--log=" + options.Log,
	}
	run := []command.Option{command.Without("PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGSERVICE")}
	if os.Geteuid() == 0 {
		credential, err := ownerCredential(options.DataDirectory)
		if err != nil {
			return Postmaster{}, err
		}
		run = append(run, command.As(credential, "/"))
	}
	if _, err := command.Run(ctx, args, run...); err != nil {
		if context.Cause(ctx) == nil {
			err = fmt.Errorf("%s could not start it", args[0]) // why is in the log
		}
		return Postmaster{}, startFailure(err, options.Log)
	}
	// pg_ctl returns as soon as a hot standby is open; this server must leave
	// recovery. Its control file says so only after new sessions may write
	// (StartupXLOG in xlog.c), and said otherwise before pg_ctl returned.
	for {
		postmaster, err := ReadPostmasterPID(options.DataDirectory)
		control, controlErr := ReadControlFile(options.DataDirectory)
		switch {
		case err == nil && postmaster.Status == "ready" && controlErr == nil && control.State == InProduction:
			return postmaster, nil
		case errors.Is(err, fs.ErrNotExist), err == nil && !postmaster.Alive():
			return Postmaster{}, startFailure(errors.New("the server ended during recovery"), options.Log)
		case err != nil:
			return Postmaster{}, err
		} // a control file that is being written is read again
		options.Waiting()
		select {
		case <-ctx.Done():
			return Postmaster{}, startFailure(context.Cause(ctx), options.Log)
		case <-time.After(pollEvery):
		}
	}
}

func startFailure(err error, log string) error {
	if data, readErr := os.ReadFile(log); readErr == nil {
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		lines = lines[max(0, len(lines)-logLines):]
		err = fmt.Errorf("%w; its log ends with:\n    %s", err, strings.Join(lines, "\n    "))
	}
	return fault.Wrap(err, fault.Server, "", "start the server")
}

// ownerCredential is the user that owns a directory, with that user's groups:
// Debian's server reads its certificate by one of them.
func ownerCredential(dir string) (*syscall.Credential, error) {
	uid, gid, err := Owner(dir)
	if err != nil {
		return nil, err
	}
	if uid == 0 {
		return nil, fault.New(fault.Storage, "give it to the user that the server runs as", "%s belongs to root, as whom PostgreSQL does not run", dir)
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	account, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return credential, nil // a user without an account, as in a container, has no groups
	}
	groups, err := account.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		if id, err := strconv.ParseUint(group, 10, 32); err == nil {
			credential.Groups = append(credential.Groups, uint32(id))
		}
	}
	return credential, nil
}

// StopServer ends a server that StartServer may have started, at once and
// without a checkpoint: the copy it ran on is about to go.
func StopServer(ctx context.Context, binDirectory, dataDirectory string) error {
	running, err := Running(dataDirectory)
	if err != nil || !running {
		return err
	}
	args := []string{filepath.Join(binDirectory, "pg_ctl"), "stop", "--silent", "--mode=immediate", "--pgdata=" + dataDirectory}
	var run []command.Option
	if os.Geteuid() == 0 {
		credential, err := ownerCredential(dataDirectory)
		if err != nil {
			return err
		}
		run = append(run, command.As(credential, "/"))
	}
	_, err = command.Run(ctx, args, run...)
	return err
}
