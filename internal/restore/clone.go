package restore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// clone makes the destination and puts a clone of each volume into it. Until the
// copy is handed over, the destination is its maker's alone, so that nobody can
// lead what root writes there elsewhere.
func (r *restoring) clone(ctx context.Context) error {
	destination := r.copy.Destination
	info, err := os.Lstat(destination)
	r.copy.DestinationMade = errors.Is(err, fs.ErrNotExist)
	if err == nil {
		stat := info.Sys().(*syscall.Stat_t)
		r.copy.Before = &catalog.Owner{UID: int(stat.Uid), GID: int(stat.Gid), Mode: info.Mode().Perm()}
	}
	if err := r.Catalog.SaveCopy(r.copy); err != nil {
		return err
	}
	if err := makeDirectory(destination); err != nil {
		return err
	}
	if err := r.takeOver(destination); err != nil {
		return err
	}
	for _, part := range r.layout.parts {
		if err := r.cloneVolume(ctx, part); err != nil {
			return fault.Wrap(err, fault.Storage, "", "clone snapshot %s", part.snapshot.ID)
		}
	}
	for link, real := range r.layout.links {
		if err := r.makeLink(link, real); err != nil {
			return err
		}
	}
	return nil
}

// takeOver makes an empty directory the caller's alone.
func (r *restoring) takeOver(dir string) error {
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 0, 0); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return checkEmpty(dir) // once more, now that nobody else can write there
}

func (r *restoring) cloneVolume(ctx context.Context, part placed) error {
	driver, err := r.driver(part.volume.Driver)
	if err != nil {
		return err
	}
	if err := r.makeRoom(part.target); err != nil {
		return err
	}
	r.copy.Clones = append(r.copy.Clones, snap.Clone{
		Driver: part.volume.Driver, Name: r.copy.Name, SnapshotID: part.snapshot.ID, Target: part.target,
	})
	if err := r.Catalog.SaveCopy(r.copy); err != nil {
		return err
	}
	clone, err := driver.Clone(ctx, part.snapshot, r.copy.Name, part.target)
	if errors.Is(err, snap.ErrNoSnapshot) {
		return fault.Wrap(err, fault.Storage, "this backup is lost; restore another, and remove its record with: pgsnap delete --lost "+r.backup.ID, "backup %s", r.backup.ID)
	}
	if err != nil {
		return err
	}
	r.copy.Clones[len(r.copy.Clones)-1] = clone
	if err := r.Catalog.SaveCopy(r.copy); err != nil || clone.Mount == nil {
		return err
	}
	if err := os.Mkdir(part.target, 0o700); err != nil {
		return err
	}
	return mount.Mount(ctx, clone.Mount.Source, part.target, clone.Mount.FSType, clone.Mount.Options)
}

func (r Restorer) driver(name string) (snap.Driver, error) {
	index := slices.IndexFunc(r.Drivers, func(d snap.Driver) bool { return d.Info().Name == name })
	if index < 0 {
		return nil, fault.New(fault.Usage, "", "there is no driver %q", name)
	}
	return r.Drivers[index], nil
}

// makeRoom makes the directory above a target, and removes an empty one at it:
// the stub that a snapshot holds for a nested volume, or a tablespace's new place.
func (r *restoring) makeRoom(target string) error {
	if snap.IsBelow(target, r.copy.Destination) {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
	} else if err := r.recordOutside(&r.copy.Directories, target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recordOutside makes the directory above a place outside of the destination,
// and notes the place first.
func (r *restoring) recordOutside(list *[]string, place string) error {
	*list = append(*list, place)
	if err := r.Catalog.SaveCopy(r.copy); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Dir(place), 0o755)
}

func (r *restoring) makeLink(link, real string) error {
	if snap.IsBelow(link, r.copy.Destination) {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
	} else if err := r.recordOutside(&r.copy.Links, link); err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(real, link)
}

// remove undoes a copy, last things first, and then its record. It can be called
// again after a failure.
func (r Restorer) remove(ctx context.Context, record *catalog.Copy) error {
	for _, link := range record.Links {
		if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if err := os.Remove(link); err != nil {
				return err
			}
		}
	}
	for _, clone := range slices.Backward(record.Clones) {
		driver, err := r.driver(clone.Driver)
		if err != nil {
			return err
		}
		if err := mount.Unmount(ctx, clone.Target); err != nil {
			return fault.Wrap(err, fault.Busy, "end the processes that use it (fuser -m names them)", "unmount %s", clone.Target)
		}
		if err := driver.Release(ctx, clone); err != nil {
			return fault.Wrap(err, fault.Storage, "", "remove the clone at %s", clone.Target)
		}
	}
	for _, directory := range record.Directories {
		if err := os.Remove(directory); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := removeDestination(record); err != nil {
		return fault.Wrap(err, fault.Storage, "", "remove %s", record.Destination)
	}
	return r.Catalog.RemoveCopy(record)
}

// removeDestination removes the directory, or only what is in it where it was
// there before. A mount that is still in it, somebody else's, is in the way.
func removeDestination(record *catalog.Copy) error {
	table, err := mount.Read()
	if err != nil {
		return err
	}
	if below := table.Below(record.Destination); len(below) > 0 {
		return fault.New(fault.Busy, "unmount it", "something is mounted at %s", below[0].Mountpoint)
	}
	if record.DestinationMade {
		return os.RemoveAll(record.Destination)
	}
	entries, err := os.ReadDir(record.Destination)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(record.Destination, entry.Name())))
	}
	if before := record.Before; err == nil && before != nil {
		err = os.Chmod(record.Destination, before.Mode)
		if os.Geteuid() == 0 {
			err = errors.Join(err, os.Chown(record.Destination, before.UID, before.GID))
		}
	}
	return err
}
