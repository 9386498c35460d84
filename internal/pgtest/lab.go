package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const (
	labPrefix = "pgsnap-test-"
	lockName  = "lab.lock"
)

// Lab is one temporary directory and all that was made in it. Its methods may be called from several goroutines.
type Lab struct {
	dir     string
	lock    *os.File // held with flock for as long as the process lives: what [Sweep] asks
	account account

	mu     sync.Mutex
	undo   []undo // run backwards by Close
	count  map[string]int
	logs   []string
	closed bool
}

type undo struct {
	what string
	do   func() error
}

// NewLab makes a temporary directory below $TMPDIR (or /tmp) that the servers' user can enter. Close takes it away.
func NewLab() (*Lab, error) {
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	// What a killed run left must not fill the disk or the table of loop devices. Its failure is no reason not to work.
	_, _ = Sweep()
	dir, err := os.MkdirTemp("", labPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	lab := &Lab{dir: dir, account: who, count: map[string]int{}}
	if err := lab.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return lab, nil
}

func (l *Lab) prepare() error {
	// The real path, for what the kernel says about mounts and working directories is compared with it.
	real, err := filepath.EvalSymlinks(l.dir)
	if err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	l.dir = real
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	if err := l.account.canEnter(l.dir); err != nil {
		return fmt.Errorf("%w: choose another TMPDIR", err)
	}
	l.lock, err = lockLab(l.dir)
	return err
}

// Dir returns the lab's directory, an absolute path without symbolic links. Anything may be put there.
func (l *Lab) Dir() string { return l.dir }

// Path returns the path of name in the lab's directory. It makes nothing.
func (l *Lab) Path(name ...string) string {
	return filepath.Join(append([]string{l.dir}, name...)...)
}

// Mkdir makes a directory that belongs to the servers' user with mode 0700, as a data directory must be, with its parents where
// they are missing (mode 0755). It may exist. path is absolute, or relative to the lab.
func (l *Lab) Mkdir(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = l.Path(path)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	if err := l.account.own(path); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o700)
}

// SocketDir makes a new directory for a server's Unix socket, short enough for the kernel's limit of 107 bytes on a socket's path.
func (l *Lab) SocketDir() (string, error) {
	dir, err := l.Mkdir(l.next("s"))
	if err != nil {
		return "", fmt.Errorf("socket directory: %w", err)
	}
	const longest = "/.s.PGSQL.65535.lock"
	if n := len(dir) + len(longest); n > 107 {
		return "", fmt.Errorf("socket directory %s: %d bytes with the socket's name, more than 107: choose a shorter TMPDIR", dir, n)
	}
	return dir, os.Chmod(dir, 0o755)
}

// Defer has do called by Close, before what was deferred earlier. what names the work in the error.
func (l *Lab) Defer(what string, do func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undo = append(l.undo, undo{what, do})
}

// Close undoes everything in reverse order: it stops the servers that run on data directories in the lab, unmounts what is mounted
// there, detaches the loop devices and removes the directory. It goes on after a failure and returns all of them. A second call
// does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	work := l.undo
	l.mu.Unlock()

	var failures []error
	// Whatever waits for a frozen file system could not even be killed.
	if err := thawBelow(l.dir); err != nil {
		failures = append(failures, err)
	}
	for i := len(work) - 1; i >= 0; i-- {
		if err := work[i].do(); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", work[i].what, err))
		}
	}
	// What the code under test started or mounted itself, in our directory.
	if err := demolish(l.dir); err != nil {
		failures = append(failures, err)
	}
	if err := l.lock.Close(); err != nil {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// next returns prefix with the next number, unique in the lab.
func (l *Lab) next(prefix string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[prefix]++
	return prefix + strconv.Itoa(l.count[prefix])
}

func (l *Lab) addLog(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logs = append(l.logs, path)
}

// Logs returns the paths of the servers' log files, in the order in which the clusters were made.
func (l *Lab) Logs() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.logs...)
}
