package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errNotRunning says that no server runs on a data directory.
var errNotRunning = errors.New("no server runs on it")

// postmasterFile is what postmaster.pid says; it may be stale, or a copy of another server's.
type postmasterFile struct {
	pid    int
	status string // "starting", "stopping", "ready" or "standby" (up, but not accepting connections yet); since 10
}

func readPostmasterFile(dataDir string) (postmasterFile, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return postmasterFile{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return postmasterFile{}, fmt.Errorf("%s/postmaster.pid: no process id in its first line", dataDir)
	}
	file := postmasterFile{pid: pid}
	const statusLine = 8
	if len(lines) >= statusLine {
		file.status = strings.TrimSpace(lines[statusLine-1])
	}
	return file, nil
}

// findPostmaster returns the server that runs on dataDir. The process named in postmaster.pid counts only if it is a postgres that
// works in this very directory: a restored copy holds its origin's file, and process ids are used again.
func findPostmaster(dataDir string) (*os.Process, error) {
	file, err := readPostmasterFile(dataDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dataDir, errNotRunning)
	}
	if err != nil {
		return nil, err
	}
	// The handle first, then the questions: it stays with this process even if the number is given to another.
	process, err := os.FindProcess(file.pid)
	if err != nil {
		return nil, err
	}
	if !isPostgres(file.pid) || !worksIn(file.pid, dataDir) {
		return nil, fmt.Errorf("%s: %w (its postmaster.pid names process %d)", dataDir, errNotRunning, file.pid)
	}
	return process, nil
}

func isPostgres(pid int) bool {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && filepath.Base(strings.TrimSuffix(program, " (deleted)")) == "postgres"
}

func worksIn(pid int, dir string) bool {
	there, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	here, err := os.Stat(dir)
	return err == nil && os.SameFile(there, here)
}

// processState returns a process's parent and its state letter (Z for one that has ended but was not collected).
func processState(pid int) (parent int, state string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	// The second field is the name in parentheses, which may itself hold spaces and parentheses.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0, "", fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0], err
}

func ended(process *os.Process) bool {
	if process.Signal(syscall.Signal(0)) != nil {
		return true
	}
	_, state, err := processState(process.Pid)
	return err != nil || state == "Z" || state == "X"
}

// waitEnded waits until a process, not necessarily a child of ours, has ended.
func waitEnded(ctx context.Context, process *os.Process) error {
	for !ended(process) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs: %w", process.Pid, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// processes returns the ids of all processes.
func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// childrenOf returns handles of the processes whose parent is pid.
func childrenOf(pid int) ([]*os.Process, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var children []*os.Process
	for _, candidate := range pids {
		process, err := os.FindProcess(candidate)
		if err != nil {
			continue
		}
		if parent, _, err := processState(candidate); err == nil && parent == pid {
			children = append(children, process)
		}
	}
	return children, nil
}

// kill ends a server as a crash would: the postmaster without warning, its children by themselves once they notice. It returns when
// all of them are gone, for until then no server can start on the same directory.
func kill(ctx context.Context, postmaster *os.Process) error {
	children, err := childrenOf(postmaster.Pid)
	if err != nil {
		return err
	}
	if err := postmaster.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", postmaster.Pid, err)
	}
	patience, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, process := range append(children, postmaster) {
		if waitEnded(patience, process) == nil {
			continue
		}
		// It was this postmaster's child when we asked, so it is ours; a child busy in a shell command does not look around.
		_ = process.Kill()
		if err := waitEnded(ctx, process); err != nil {
			return err
		}
	}
	return nil
}

// stopServersBelow stops the servers that work in a directory below dir. Whoever started them, they run in our own temporary
// directory.
func stopServersBelow(dir string) error {
	pids, err := processes()
	if err != nil {
		return err
	}
	found := map[int]*os.Process{}
	for _, pid := range pids {
		process, err := os.FindProcess(pid)
		if err != nil || !isPostgres(pid) {
			continue
		}
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && strings.HasPrefix(cwd, dir+"/") {
			found[pid] = process
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var failures []error
	for pid, process := range found {
		if parent, _, err := processState(pid); err != nil || found[parent] != nil {
			continue // ended, or a postmaster's child
		}
		_ = process.Signal(syscall.SIGQUIT)
		patience, stop := context.WithTimeout(ctx, 10*time.Second)
		if waitEnded(patience, process) != nil {
			if err := kill(ctx, process); err != nil {
				failures = append(failures, fmt.Errorf("stop the server %d below %s: %w", pid, dir, err))
			}
		}
		stop()
	}
	// Orphans of a postmaster that was killed.
	for _, process := range found {
		if err := waitEnded(ctx, process); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
