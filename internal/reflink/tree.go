package reflink

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 64 << 20

// treeCopy copies a directory tree, sharing the files' blocks where the file
// system can. What vanishes, grows or shrinks meanwhile is normal: in backup
// mode the WAL makes it whole.
type treeCopy struct {
	from, to string
	// skip leaves out a file, or a directory with all below it.
	skip func(relative string) bool
	// skipContent makes a directory without its content.
	skipContent func(relative string) bool

	workers *errgroup.Group
	// copies is set once the file system has refused to share blocks.
	copies atomic.Bool
}

func (t *treeCopy) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	t.workers = group
	err := t.directory(ctx, ".")
	if waited := group.Wait(); waited != nil {
		return waited // which is what made the walk stop
	}
	return err
}

func (t *treeCopy) directory(ctx context.Context, relative string) error {
	from, to := filepath.Join(t.from, relative), filepath.Join(t.to, relative)
	info, err := os.Lstat(from)
	if vanished(err) && relative != "." {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	if err := own(to, info); err != nil {
		return err
	}
	if t.skipContent(relative) {
		return nil
	}
	entries, err := os.ReadDir(from)
	if err != nil && !vanished(err) {
		return err
	}
	for _, entry := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		path := filepath.Join(relative, entry.Name())
		switch {
		case t.skip(path):
		case entry.IsDir():
			err = t.directory(ctx, path)
		case entry.Type()&fs.ModeSymlink != 0:
			err = t.link(path)
		case entry.Type().IsRegular():
			t.workers.Go(func() error { return t.file(ctx, path) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *treeCopy) link(relative string) error {
	from, to := filepath.Join(t.from, relative), filepath.Join(t.to, relative)
	info, err := os.Lstat(from)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	target, err := os.Readlink(from)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Symlink(target, to); err != nil {
		return err
	}
	return own(to, info)
}

func (t *treeCopy) file(ctx context.Context, relative string) (err error) {
	source, err := os.OpenFile(filepath.Join(t.from, relative), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	to := filepath.Join(t.to, relative)
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := t.content(ctx, source, target); err != nil {
		return &fs.PathError{Op: "copy", Path: source.Name(), Err: err}
	}
	return own(to, info)
}

func (t *treeCopy) content(ctx context.Context, source, target *os.File) error {
	if !t.copies.Load() {
		err := unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
			t.copies.Store(true)
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL):
			// this file only: it lies on another file system, or can't be shared
		default:
			return err
		}
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, err := io.CopyN(target, source, chunk)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// own gives a copied file its original's owner and mode.
func own(path string, original fs.FileInfo) error {
	stat := original.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	if original.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return os.Chmod(path, original.Mode().Perm())
}

func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
