package reflink

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 64 << 20

// content makes target's content the first size bytes of source's, or all of
// them; what is appended meanwhile is in the WAL.
func (t *treeCopy) content(ctx context.Context, source, target *os.File, size int64) error {
	if !t.copies.Load() {
		err := share(source, target)
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
	return copyData(ctx, source, target, size)
}

func share(source, target *os.File) error {
	err := unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
	if errors.Is(err, unix.EINVAL) && takeOverNoCOW(source, target) {
		err = unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
	}
	return err
}

// takeOverNoCOW makes target a file without copy-on-write (chattr +C), if source
// is one. Btrfs shares no blocks between the two kinds, and many a data directory
// there is of this one.
func takeOverNoCOW(source, target *os.File) bool {
	const noCOW = 0x00800000 // FS_NOCOW_FL of linux/fs.h
	flags, err := unix.IoctlGetUint32(int(source.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&noCOW == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(int(target.Fd()), unix.FS_IOC_SETFLAGS, noCOW) == nil
}

// copyData copies what is not a hole.
func copyData(ctx context.Context, source, target *os.File, size int64) error {
	for at := int64(0); at < size; {
		start, err := source.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end, which may have come nearer
		}
		if err != nil {
			return err
		}
		end, err := source.Seek(start, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if err := copyRange(ctx, source, target, start, min(end, size)); err != nil {
			return err
		}
		at = end
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	return target.Truncate(min(size, info.Size()))
}

func copyRange(ctx context.Context, source, target *os.File, start, end int64) error {
	for _, file := range []*os.File{source, target} {
		if _, err := file.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	for at := start; at < end; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		copied, err := io.CopyN(target, source, min(chunk, end-at))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at += copied
	}
	return nil
}
