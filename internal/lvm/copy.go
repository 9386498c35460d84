package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"pgsnap/internal/command"
	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// copyFiles copies what a classic snapshot holds to a clone's target. The snapshot
// is read-only, and mounted so only for that long, beside the target: nothing can
// change it, and the copy needs it no more.
func copyFiles(ctx context.Context, r row, fileSystem fileSystem, clone snap.Clone) error {
	at := besideTarget(clone)
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	err := mountToRead(ctx, r, fileSystem, at)
	if err == nil {
		err = checkRoomFor(at, filepath.Dir(clone.Target))
	}
	if err == nil {
		_, err = command.Run(ctx, []string{"cp", "--archive", "--no-target-directory", "--", at, clone.Target})
	}
	if err == nil {
		err = stillHolds(r)
	}
	return errors.Join(err, removeMount(context.WithoutCancel(ctx), at))
}

// besideTarget is where a snapshot is mounted while its files are copied.
func besideTarget(clone snap.Clone) string {
	return filepath.Join(filepath.Dir(clone.Target), "."+cloneName(clone.Name, clone.SnapshotID))
}

// mountToRead mounts a classic snapshot. It was cut with its file system frozen, so
// its journal has nothing to replay, and the kernel refuses the mount of a
// read-only device where it has. XFS alone may do so all the same: freezing leaves
// a last record in its log, for the sake of files that were deleted while open
// (xfs_fs_freeze in fs/xfs/xfs_super.c); all else is in place by then.
func mountToRead(ctx context.Context, r row, fileSystem fileSystem, at string) error {
	options := []string{"ro"}
	if fileSystem.kind == "xfs" {
		options = append(options, "nouuid")
	}
	source := "/dev/" + r.id()
	err := mount.Mount(ctx, source, at, fileSystem.kind, options)
	if err != nil && fileSystem.kind == "xfs" && context.Cause(ctx) == nil {
		err = mount.Mount(ctx, source, at, fileSystem.kind, append(options, "norecovery"))
	}
	return err
}

// checkRoomFor makes sure that what is on one file system fits on another.
func checkRoomFor(from, to string) error {
	var source, destination unix.Statfs_t
	if err := errors.Join(unix.Statfs(from, &source), unix.Statfs(to, &destination)); err != nil {
		return err
	}
	needed := float64(source.Blocks-source.Bfree) * float64(source.Bsize)
	free := float64(destination.Bavail) * float64(destination.Bsize)
	if needed > free {
		return fault.New(fault.Storage, "restore to a file system with more room",
			"a classic snapshot is restored by copy, which takes %s, but there are %s free at %s", bytesText(needed), bytesText(free), to)
	}
	return nil
}

// stillHolds makes sure that a snapshot did not overflow while it was read.
func stillHolds(r row) error {
	dm, err := openControl()
	if err != nil {
		return err
	}
	defer dm.close()
	return checkClassicHeld(dm, snap.Snapshot{ID: r.id()})
}

// removeFiles removes what was copied for a clone, or begun to be.
func removeFiles(ctx context.Context, clone snap.Clone) error {
	if err := removeMount(ctx, besideTarget(clone)); err != nil {
		return err
	}
	table, err := mount.Read()
	if err != nil {
		return err
	}
	for _, mounted := range table {
		if snap.IsBelow(mounted.Mountpoint, clone.Target) {
			return fault.New(fault.Busy, "unmount it", "something is mounted at %s", mounted.Mountpoint)
		}
	}
	return os.RemoveAll(clone.Target)
}

func removeMount(ctx context.Context, at string) error {
	if !exists(at) {
		return nil
	}
	if err := mount.Unmount(ctx, at); err != nil {
		return fault.Wrap(err, fault.Busy, "end the processes that use it (fuser -m names them)", "unmount %s", at)
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the mount point of a snapshot: %w", err)
	}
	return nil
}
