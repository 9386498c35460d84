package zfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
)

// zvolPrefix begins the kernel's names of zvols (ZVOL_DEV_NAME in sys/fs/zfs.h).
const zvolPrefix = "zd"

// zvolOf is the zvol on the whole of which a file system is mounted; empty where it
// is on something else.
func zvolOf(on *mountinfo.Info) (dataset string, err error) {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", on.Major, on.Minor)
	link, err := os.Readlink(dir)
	if err != nil {
		return "", nil // not a block device
	}
	name := filepath.Base(link)
	if !strings.HasPrefix(name, zvolPrefix) {
		return "", nil
	}
	if exists(filepath.Join(dir, "partition")) {
		return "", fault.New(fault.Storage, "have the file system on the whole zvol", "%s is on a partition of a zvol, %s", on.Mountpoint, name)
	}
	return zvolName("/dev/" + name)
}

// zvolName asks a zvol's device for the dataset (BLKZNAME in sys/fs/zfs.h, served by
// zvol_ioctl in module/os/linux/zfs/zvol_os.c).
func zvolName(device string) (string, error) {
	const blkZName = 0x8100127D
	handle, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer handle.Close()
	var name [256]byte // ZFS_MAX_DATASET_NAME_LEN
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, handle.Fd(), blkZName, uintptr(unsafe.Pointer(&name[0]))); errno != 0 {
		return "", fmt.Errorf("ask %s for its name: %w", device, errno)
	}
	text, _, _ := bytes.Cut(name[:], []byte{0})
	return string(text), nil
}

// The times that a new zvol's device, and udev's link to it, may take.
const (
	deviceTimeout = 30 * time.Second
	linkTimeout   = 3 * time.Second
)

// waitForZvol waits for the device of a zvol, which comes some time after the zvol
// (zvol_create_minors in module/zfs/zvol.c). Of its names it returns the one that
// outlives a boot, if udev makes that.
func waitForZvol(ctx context.Context, dataset string) (string, error) {
	device := ""
	for start := time.Now(); device == ""; {
		var err error
		if device, err = findZvol(dataset); err != nil {
			return "", err
		}
		if device == "" && time.Since(start) > deviceTimeout {
			return "", fault.New(fault.Storage, "see whether udev works, and what zfs get volmode says", "zvol %s has no device after %v", dataset, deviceTimeout)
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
	// udev/rules.d/60-zvol.rules; zvol_id writes a space as a plus sign.
	link := "/dev/zvol/" + strings.ReplaceAll(dataset, " ", "+")
	for start := time.Now(); exists("/dev/zvol") && time.Since(start) < linkTimeout; {
		if real, err := filepath.EvalSymlinks(link); err == nil && real == device {
			return link, nil
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
	return device, nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

// findZvol is the device of a zvol; empty where there is none.
func findZvol(dataset string) (string, error) {
	devices, err := filepath.Glob("/sys/block/" + zvolPrefix + "*")
	for _, device := range devices {
		path := "/dev/" + filepath.Base(device)
		name, err := zvolName(path)
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EBUSY)
		if err != nil && !gone {
			return "", err
		}
		if name == dataset {
			return path, nil
		}
	}
	return "", err
}

// fileSystemOn is the type of the file system on a device, by its superblock: XFS
// has its magic number at the beginning, ext2 to ext4 at byte 0x38 of the superblock
// at 1024 (kernel: Documentation/filesystems/ext4/super.rst).
func fileSystemOn(device string) (string, error) {
	handle, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer handle.Close()
	head := make([]byte, 2048)
	if _, err := io.ReadFull(handle, head); err != nil {
		return "", fmt.Errorf("read %s: %w", device, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("XFSB")):
		return "xfs", nil
	case binary.LittleEndian.Uint16(head[1024+0x38:]) == 0xEF53:
		return "ext4", nil // which mounts ext2 and ext3 as well
	}
	return "", fault.New(fault.Storage, "", "%s holds neither ext4 nor XFS", device)
}

// checkFileSystem refuses a file system of which a part is elsewhere.
func checkFileSystem(on *mountinfo.Info, zvol string) error {
	elsewhere := ""
	for option := range strings.SplitSeq(on.VFSOptions, ",") {
		if strings.HasPrefix(option, "logdev=") || strings.HasPrefix(option, "rtdev=") { // xfs(5)
			elsewhere = option
		}
	}
	if strings.HasPrefix(on.FSType, "ext") {
		handle, err := os.Open(fmt.Sprintf("/dev/block/%d:%d", on.Major, on.Minor))
		if errors.Is(err, fs.ErrNotExist) {
			handle, err = os.Open(on.Source)
		}
		if err != nil {
			return err
		}
		defer handle.Close()
		var journal [4]byte // s_journal_dev, at byte 0xE4 of the superblock
		if _, err := handle.ReadAt(journal[:], 1024+0xE4); err != nil {
			return err
		}
		if journal != [4]byte{} {
			elsewhere = "an external journal"
		}
	}
	if elsewhere == "" {
		return nil
	}
	return fault.New(fault.Storage, "move its log into the file system",
		"the file system at %s has a part on another device (%s), which a snapshot of %s does not hold", on.Mountpoint, elsewhere, zvol)
}
