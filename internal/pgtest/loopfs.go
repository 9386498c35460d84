package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// FS is a file system on a loop device over a sparse file in the lab.
type FS struct {
	Kind  string // xfs, btrfs or ext4
	Dir   string // where it is mounted
	Image string // the sparse file
}

// LoopFS makes a file system of kind xfs (with reflink), btrfs or ext4, sizeMiB mebibytes large, and mounts it with the given mount
// options. Its directory belongs to the servers' user. xfs needs at least 300 MiB, btrfs 109; a small ext4 is for tests of a full
// disk. Only root can do this.
func (l *Lab) LoopFS(ctx context.Context, kind string, sizeMiB int, options ...string) (*FS, error) {
	mkfs := map[string][]string{
		"xfs":   {"mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"},
		"btrfs": {"mkfs.btrfs", "-q", "-f", "-K"},
		"ext4":  {"mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"},
	}[kind]
	if mkfs == nil {
		return nil, fmt.Errorf("no file system %q is known to the tests", kind)
	}
	name := l.next(kind)
	fs := &FS{Kind: kind, Dir: l.Path(name), Image: l.Path(name + ".img")}
	if err := makeSparse(fs.Image, int64(sizeMiB)<<20); err != nil {
		return nil, err
	}
	if _, err := run(exec.CommandContext(ctx, mkfs[0], append(mkfs[1:], fs.Image)...)); err != nil {
		return nil, fmt.Errorf("make a file system: %w", err)
	}
	if err := l.MountImage(ctx, fs.Image, fs.Dir, options...); err != nil {
		return nil, err
	}
	if err := l.account.own(fs.Dir); err != nil {
		return nil, fmt.Errorf("own %s: %w", fs.Dir, err)
	}
	return fs, os.Chmod(fs.Dir, 0o755)
}

// MountImage mounts an image file, such as a copy of a file system's, on dir, which is made. A copy of a mounted xfs needs the
// option nouuid. The loop device goes away by itself with the mount.
func (l *Lab) MountImage(ctx context.Context, image, dir string, options ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The kernel's list of mounts has the real path.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	with := strings.Join(append([]string{"loop"}, options...), ",")
	if _, err := run(exec.CommandContext(ctx, "mount", "-o", with, image, dir)); err != nil {
		return fmt.Errorf("mount %s: %w", image, err)
	}
	l.Defer("unmount "+dir, func() error { return unmountTree(dir) })
	return nil
}

// Unmount unmounts a file system and what is mounted below it. One that is not mounted is no error.
func (f *FS) Unmount() error { return unmountTree(f.Dir) }

func unmountTree(dir string) error {
	// A server that the code under test left behind would keep the file system busy.
	err := stopServersBelow(dir)
	points, mountErr := mountsBelow(filepath.Dir(dir))
	if mountErr != nil {
		return errors.Join(err, mountErr)
	}
	failures := []error{err}
	for i := len(points) - 1; i >= 0; i-- {
		if points[i] == dir || strings.HasPrefix(points[i], dir+"/") {
			failures = append(failures, unmount(points[i]))
		}
	}
	return errors.Join(failures...)
}

// Subvolume makes a btrfs subvolume that belongs to the servers' user, and returns its path.
func (l *Lab) Subvolume(ctx context.Context, fs *FS, name string) (string, error) {
	if fs.Kind != "btrfs" {
		return "", fmt.Errorf("%s has no subvolumes: it is %s", fs.Dir, fs.Kind)
	}
	path := filepath.Join(fs.Dir, name)
	if _, err := run(exec.CommandContext(ctx, "btrfs", "subvolume", "create", path)); err != nil {
		return "", fmt.Errorf("make a subvolume: %w", err)
	}
	return path, l.account.own(path)
}

func makeSparse(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// waitFor asks until cond has no error or the time is over, and returns the last error.
func waitFor(ctx context.Context, timeout time.Duration, cond func() error) error {
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := cond()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", timeout, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}
