package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the operating system's user who runs the servers and owns their files.
type account struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	change bool // commands must change to this user: we are root
}

// serverAccount returns postgres when we are root, for PostgreSQL refuses to run as root, and ourselves otherwise.
func serverAccount() (account, error) {
	change := os.Geteuid() == 0
	var entry *user.User
	var err error
	if change {
		entry, err = user.Lookup("postgres")
	} else {
		entry, err = user.Current()
	}
	if err != nil {
		return account{}, fmt.Errorf("find the servers' user: %w: run test/setup", err)
	}
	ids, err := entry.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("groups of the user %s: %w", entry.Username, err)
	}
	who := account{name: entry.Username, change: change}
	for i, text := range append([]string{entry.Uid, entry.Gid}, ids...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %s: id %q: %w", entry.Username, text, err)
		}
		switch i {
		case 0:
			who.uid = uint32(n)
		case 1:
			who.gid = uint32(n)
		default:
			who.groups = append(who.groups, uint32(n))
		}
	}
	return who, nil
}

// own gives path to the account.
func (a account) own(path string) error {
	if !a.change {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// canEnter says whether the account may pass through dir and everything above it.
func (a account) canEnter(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no owner known", dir)
		}
		mode := info.Mode().Perm()
		allowed := mode&0o001 != 0
		switch {
		case stat.Uid == a.uid:
			allowed = mode&0o100 != 0
		case a.has(stat.Gid):
			allowed = mode&0o010 != 0
		}
		if !allowed {
			return fmt.Errorf("the user %s cannot enter %s (mode %04o)", a.name, dir, mode)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a account) has(gid uint32) bool {
	for _, group := range a.groups {
		if group == gid {
			return true
		}
	}
	return gid == a.gid
}

// command prepares a program to run as the account, in dir, with nothing of the caller's PostgreSQL settings or language.
func (a account) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = environment(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a.change {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
	}
	return cmd
}

// environment is ours without PostgreSQL's variables and the language's, so that a test does not depend on who runs it.
func environment(home string) []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if name == "LANG" || name == "LANGUAGE" || name == "TZ" || name == "HOME" ||
			strings.HasPrefix(name, "LC_") || (strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGSNAP_")) {
			continue
		}
		env = append(env, entry)
	}
	return append(env, "LC_ALL=C", "LANG=C", "TZ=UTC", "HOME="+home)
}

// Command prepares a program to run in the lab's directory as the servers' user, with a plain environment (LC_ALL=C, TZ=UTC, no
// PGHOST and the like). Code under test that must run as root needs os/exec itself.
func (l *Lab) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return l.account.command(ctx, l.dir, program, args...)
}

// User returns the name of the operating system's user who runs the servers and owns their files.
func (l *Lab) User() string { return l.account.name }

// Own gives path to the user who runs the servers. Symbolic links are not followed.
func (l *Lab) Own(path string) error { return l.account.own(path) }

// run runs a program to its end and returns what it printed; the error names the program and holds the same text.
func run(cmd *exec.Cmd) (string, error) {
	output, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(output))
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return text, nil
}
