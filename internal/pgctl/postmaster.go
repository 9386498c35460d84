package pgctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Postmaster is what a running server writes into postmaster.pid (pidfile.h).
type Postmaster struct {
	PID             int
	DataDirectory   string
	Port            int
	SocketDirectory string
	// Status is starting, stopping, ready or standby (10 and later).
	Status string
}

// ReadPostmasterPID reads a data directory's postmaster.pid; without one the
// error is fs.ErrNotExist.
func ReadPostmasterPID(dataDirectory string) (Postmaster, error) {
	path := filepath.Join(dataDirectory, "postmaster.pid")
	data, err := os.ReadFile(path)
	if err != nil {
		return Postmaster{}, err
	}
	postmaster, err := parsePostmasterPID(data)
	if err != nil {
		return Postmaster{}, fmt.Errorf("%s: %w", path, err)
	}
	return postmaster, nil
}

func parsePostmasterPID(data []byte) (Postmaster, error) {
	lines := strings.Split(string(data), "\n")
	line := func(number int) string {
		if number <= len(lines) {
			return strings.TrimSpace(lines[number-1])
		}
		return ""
	}
	pid, err := strconv.ParseInt(line(1), 10, 32) // kill(2) would cut a longer one
	if pid < 0 {
		pid = -pid // a single-user server writes it negative
	}
	if err != nil || pid == 0 {
		return Postmaster{}, fmt.Errorf("%q is no process id", line(1))
	}
	port, _ := strconv.Atoi(line(4)) // not there yet while the server starts
	return Postmaster{PID: int(pid), DataDirectory: line(2), Port: port, SocketDirectory: line(5), Status: line(8)}, nil
}

// Alive tells whether the process still exists.
func (p Postmaster) Alive() bool {
	err := syscall.Kill(p.PID, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// BinDirectory is where the running server's programs are, or "" where
// /proc does not tell.
func (p Postmaster) BinDirectory() string {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil || !strings.HasPrefix(filepath.Base(program), "post") {
		return ""
	}
	return filepath.Dir(program)
}

// Running tells whether a server runs on the data directory.
func Running(dataDirectory string) (bool, error) {
	postmaster, err := ReadPostmasterPID(dataDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && postmaster.Alive(), err
}

// Owner is the numeric user and group that own a path.
func Owner(path string) (uid, gid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid), nil
}
