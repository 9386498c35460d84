package reflink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// pair is an open directory and its copy. What is below them is reached through
// them and never by its path, in which its owner may put a link at any moment.
type pair struct {
	from, to *os.File
	info     fs.FileInfo // of the original
	users    atomic.Int32
}

func (p *pair) use() *pair {
	p.users.Add(1)
	return p
}

// done is called by each user. After the last the copy gets its original's owner
// and mode, under which it may be closed to us.
func (p *pair) done() error {
	if p.users.Add(-1) > 0 {
		return nil
	}
	var err error
	if p.info != nil {
		err = own(p.to, p.info)
	}
	return errors.Join(err, p.from.Close(), p.to.Close())
}

func (p *pair) doneAfter(err *error) { *err = errors.Join(*err, p.done()) }

// errChanged is that something is no longer what its directory said it was.
var errChanged = errors.New("it has become something else")

const directoryFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW

// openIn opens what has that name in a directory, which is not a link.
func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
			continue
		case unix.ELOOP, unix.ENOTDIR, unix.ENXIO: // a link, a file, a socket
			return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w (%w)", errChanged, err)}
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
}

// below opens a directory and makes its copy.
func (p *pair) below(name string) (*pair, error) {
	from, err := openIn(p.from, name, directoryFlags)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(int(p.to.Fd()), name, 0o700); err != nil {
		err = &fs.PathError{Op: "mkdir", Path: filepath.Join(p.to.Name(), name), Err: err}
		return nil, errors.Join(err, from.Close())
	}
	to, err := openIn(p.to, name, directoryFlags)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return &pair{from: from, to: to}, nil
}

// openFile opens a file of the original.
func (p *pair) openFile(name string) (*os.File, fs.FileInfo, error) {
	file, err := openIn(p.from, name, unix.O_RDONLY|unix.O_NONBLOCK) // a pipe would have us wait
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: file.Name(), Err: errChanged}
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

func (p *pair) copyLink(name string) error {
	from, to := int(p.from.Fd()), int(p.to.Fd())
	fail := func(op string, dir *os.File, err error) error {
		return &fs.PathError{Op: op, Path: filepath.Join(dir.Name(), name), Err: err}
	}
	target := make([]byte, unix.PathMax)
	length, err := unix.Readlinkat(from, name, target)
	if errors.Is(err, unix.EINVAL) {
		err = errChanged // into what is no link
	}
	if err != nil {
		return fail("readlink", p.from, err)
	}
	if err := unix.Symlinkat(string(target[:length]), to, name); err != nil {
		return fail("symlink", p.to, err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(from, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("stat", p.from, err)
	}
	if err := unix.Fchownat(to, name, int(stat.Uid), int(stat.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("chown", p.to, err)
	}
	return nil
}

// own gives a copy its original's owner and mode.
func own(file *os.File, original fs.FileInfo) error {
	if os.Geteuid() == 0 {
		stat := original.Sys().(*syscall.Stat_t)
		if err := file.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return file.Chmod(original.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky))
}
