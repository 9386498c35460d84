package pgtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// template returns a cluster fresh from initdb with these options, to be copied and never started. initdb takes seconds, so it runs
// once for each server and set of options; the result (about 40 MB) stays in a cache, for the tests of other packages too. The cache
// may be removed whenever no test runs.
func (l *Lab) template(ctx context.Context, server Server, o Options) (string, error) {
	templates, err := templateDir()
	if err != nil {
		return "", err
	}
	key, err := templateKey(server, o)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(templates, key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // made while we waited
	}
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil { // of one that was killed: we hold the lock
		return "", err
	}
	if err := l.initdb(ctx, server, unfinished, o); err != nil {
		return "", errors.Join(err, os.RemoveAll(unfinished))
	}
	return dir, os.Rename(unfinished, dir)
}

// templateDir is the cache of templates. They belong to the servers' user, so root's and an ordinary user's are not shared.
func templateDir() (string, error) {
	if os.Geteuid() == 0 {
		cache, err := cacheDir()
		return filepath.Join(cache, "templates"), err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep template clusters: %w", err)
	}
	return filepath.Join(cache, "pgsnap", "templates"), nil
}

// templateKey names a template after everything that decides what it holds.
func templateKey(server Server, o Options) (string, error) {
	program, err := filepath.EvalSymlinks(server.Bin("initdb"))
	if err != nil {
		return "", fmt.Errorf("initdb of PostgreSQL %s: %w", server, err)
	}
	info, err := os.Stat(program)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %d %v %q %q", program, info.Size(), info.ModTime(), o.initdbArgs(server), o.Password)
	return fmt.Sprintf("%s-%x", server.Name, hash.Sum(nil)[:6]), nil
}

// initdb makes a cluster in dir, which it makes too.
func (l *Lab) initdb(ctx context.Context, server Server, dir string, o Options) error {
	if _, err := l.Mkdir(dir); err != nil {
		return err
	}
	args := append([]string{"-D", dir}, o.initdbArgs(server)...)
	if o.Password != "" {
		file := l.Path(l.next("password"))
		if err := os.WriteFile(file, []byte(o.Password+"\n"), 0o600); err != nil {
			return err
		}
		defer os.Remove(file)
		if err := l.account.own(file); err != nil {
			return err
		}
		args = append(args, "--pwfile="+file)
	}
	if output, err := l.Command(ctx, server.Bin("initdb"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("initdb %s of PostgreSQL %s: %w\n%s", dir, server, err, output)
	}
	return nil
}

// copyTree copies what is in the directory from into the directory to, which exists, with owners, modes and symbolic links.
func copyTree(ctx context.Context, from, to string) error {
	_, err := run(copyCommand(ctx, from, to))
	return err
}

func copyCommand(ctx context.Context, from, to string) *exec.Cmd {
	return exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", "--", from+"/.", to)
}
