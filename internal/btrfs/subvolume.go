package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pgsnap/internal/mount"
)

const (
	// rootInode is the inode number of every subvolume's root
	// (BTRFS_FIRST_FREE_OBJECTID in btrfs_tree.h).
	rootInode = 256

	// The requests of linux/btrfs.h; each takes 4096 bytes.
	inoLookup        = 0xD0009412 // BTRFS_IOC_INO_LOOKUP
	getSubvolRootref = 0xD000943D // BTRFS_IOC_GET_SUBVOL_ROOTREF
	inoLookupUser    = 0xD000943E // BTRFS_IOC_INO_LOOKUP_USER

	maxRootrefs = 255
)

// onBtrfs tells whether a path lies on Btrfs.
func onBtrfs(path string) (bool, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return stat.Type == unix.BTRFS_SUPER_MAGIC, nil
}

// sameFileSystem tells whether two paths lie on one Btrfs, be it in different
// subvolumes.
func sameFileSystem(a, b string) (bool, error) {
	var statA, statB unix.Statfs_t
	if err := errors.Join(unix.Statfs(a, &statA), unix.Statfs(b, &statB)); err != nil {
		return false, err
	}
	if statA.Type != unix.BTRFS_SUPER_MAGIC || statB.Type != unix.BTRFS_SUPER_MAGIC {
		return false, nil
	}
	fsidA, errA := fileSystemID(a)
	fsidB, errB := fileSystemID(b)
	return fsidA == fsidB, errors.Join(errA, errB)
}

// fileSystemID is the file system's UUID (BTRFS_IOC_FS_INFO); statfs mixes the
// subvolume into its own.
func fileSystemID(path string) (id [16]byte, err error) {
	const fsInfo = 0x8400941F // BTRFS_IOC_FS_INFO, which fills 1024 bytes
	var info [1024]byte
	err = ioctl(path, fsInfo, info[:])
	copy(id[:], info[16:32])
	return id, err
}

// isSubvolume tells whether a directory is a subvolume's root.
func isSubvolume(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	btrfs, err := onBtrfs(path)
	return btrfs && info.IsDir() && info.Sys().(*syscall.Stat_t).Ino == rootInode, err
}

// subvolumeOf is the root of the subvolume that a path lies in, or "" where it
// can't be reached, as below a bind mount of one of its directories.
func subvolumeOf(path string) (string, error) {
	for dir := path; ; dir = filepath.Dir(dir) {
		if btrfs, err := onBtrfs(dir); err != nil || !btrfs {
			return "", err
		}
		root, err := isSubvolume(dir)
		if err != nil {
			return "", err
		}
		if root {
			// What is mounted in between is not what the subvolume itself has there.
			same, err := sameMount(path, dir)
			if err != nil || !same {
				return "", err
			}
			return dir, nil
		}
		if dir == "/" {
			return "", nil
		}
	}
}

func sameMount(a, b string) (bool, error) {
	table, err := mount.Read()
	if err != nil {
		return false, err
	}
	mountA, errA := table.Of(a)
	mountB, errB := table.Of(b)
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	return mountA.ID == mountB.ID, nil
}

// subvolumeID is the number of the subvolume with that root.
func subvolumeID(root string) (uint64, error) {
	var args [4096]byte
	binary.LittleEndian.PutUint64(args[8:], rootInode)
	err := ioctl(root, inoLookup, args[:])
	return binary.LittleEndian.Uint64(args[0:]), err
}

// nestedIn are the roots of the subvolumes directly below one. The kernel tells
// without privileges (from 4.18).
func nestedIn(root string) ([]string, error) {
	var nested []string
	next := uint64(0)
	for {
		var refs [4096]byte
		binary.LittleEndian.PutUint64(refs[0:], next)
		err := ioctl(root, getSubvolRootref, refs[:])
		more := errors.Is(err, unix.EOVERFLOW)
		if err != nil && !more {
			return nil, err
		}
		count := int(refs[8+16*maxRootrefs])
		for i := range count {
			ref := refs[8+16*i:]
			name, err := nestedName(root, binary.LittleEndian.Uint64(ref[0:]), binary.LittleEndian.Uint64(ref[8:]))
			if errors.Is(err, unix.ENOENT) {
				continue // deleted meanwhile
			}
			if err != nil {
				return nil, err
			}
			nested = append(nested, filepath.Join(root, name))
		}
		if !more {
			return nested, nil
		}
		next = binary.LittleEndian.Uint64(refs[0:])
	}
}

// nestedName is the path, below a subvolume's root, of the subvolume with a
// number in the directory with an inode number.
func nestedName(root string, subvolume, directory uint64) (string, error) {
	var args [4096]byte
	binary.LittleEndian.PutUint64(args[0:], directory)
	binary.LittleEndian.PutUint64(args[8:], subvolume)
	if err := ioctl(root, inoLookupUser, args[:]); err != nil {
		return "", err
	}
	name, path := text(args[16:16+256]), text(args[16+256:])
	return filepath.Join(path, name), nil
}

func text(field []byte) string {
	before, _, _ := bytes.Cut(field, []byte{0})
	return string(before)
}

func ioctl(path string, request uintptr, args []byte) error {
	handle, err := os.Open(path)
	if err != nil {
		return err
	}
	defer handle.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, handle.Fd(), request, uintptr(unsafe.Pointer(&args[0])))
	if errno != 0 {
		return fmt.Errorf("btrfs: ask about %s: %w", path, errno)
	}
	return nil
}
