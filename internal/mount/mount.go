// Package mount knows what is mounted where, and mounts and unmounts.
package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"pgsnap/internal/command"
)

// Table is what is mounted in this mount namespace at one moment.
type Table []*mountinfo.Info

// Read reads the table (proc_pid_mountinfo(5)).
func Read() (Table, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read what is mounted: %w", err)
	}
	return mounts, nil
}

// Of is the mount that a path lies on. The path is absolute, with every symbolic
// link followed.
func (t Table) Of(path string) (*mountinfo.Info, error) {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &stat); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if stat.Mask&unix.STATX_MNT_ID != 0 {
		for _, mount := range t {
			if uint64(mount.ID) == stat.Mnt_id {
				return mount, nil
			}
		}
	}
	// A kernel before 5.8 does not tell: then it is the longest mount point above
	// the path, and of several there the latest.
	var found *mountinfo.Info
	for _, mount := range t {
		if isAt(path, mount.Mountpoint) && (found == nil || len(mount.Mountpoint) >= len(found.Mountpoint)) {
			found = mount
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s: nothing is mounted there", path)
	}
	return found, nil
}

// Below are the mounts below a directory, not on it, parents first.
func (t Table) Below(dir string) []*mountinfo.Info {
	var below []*mountinfo.Info
	for _, mount := range t {
		if mount.Mountpoint != dir && isAt(mount.Mountpoint, dir) {
			below = append(below, mount)
		}
	}
	slices.SortStableFunc(below, func(a, b *mountinfo.Info) int {
		return cmp.Compare(len(a.Mountpoint), len(b.Mountpoint))
	})
	return below
}

func isAt(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Mount mounts source at target, which must exist.
func Mount(ctx context.Context, source, target, fsType string, options []string) error {
	args := []string{"mount", "-t", fsType}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	_, err := command.Run(ctx, append(args, "--", source, target))
	return err
}

// Unmount unmounts what is mounted at target; nothing mounted there is success,
// and so is no such directory.
func Unmount(ctx context.Context, target string) error {
	mounted, err := mountinfo.Mounted(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !mounted {
		return err
	}
	_, err = command.Run(ctx, []string{"umount", "--", target})
	return err
}
