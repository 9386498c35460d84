package lvm

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// checkFileSystem refuses a file system of which a part is elsewhere: a snapshot
// of one volume would not hold it.
func checkFileSystem(d device, on *mountinfo.Info) error {
	elsewhere := ""
	switch on.FSType {
	case "xfs": // logdev and rtdev in xfs(5)
		for option := range strings.SplitSeq(on.VFSOptions, ",") {
			if strings.HasPrefix(option, "logdev=") || strings.HasPrefix(option, "rtdev=") {
				elsewhere = option
			}
		}
	case "ext3", "ext4":
		external, err := externalJournal("/dev/mapper/" + d.name)
		if err != nil {
			return err
		}
		if external {
			elsewhere = "an external journal"
		}
	}
	if elsewhere == "" {
		return nil
	}
	return fault.New(fault.Storage, "move its log into the file system",
		"the file system at %s has a part on another device (%s), which a snapshot of %s does not hold", on.Mountpoint, elsewhere, d.name)
}

// externalJournal reads s_journal_dev of the superblock of ext3 and ext4: at byte
// 0xE4 of it, and it is at 1024 (Documentation/filesystems/ext4/super.rst). It is 0
// where the journal is a file.
func externalJournal(path string) (bool, error) {
	handle, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer handle.Close()
	var field [4]byte
	if _, err := handle.ReadAt(field[:], 1024+0xE4); err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint32(field[:]) != 0, nil
}

// keptOptions are the mount options that a clone is mounted with as its original
// was; a value may follow "=". Others are the kernel's own report on the mount, or
// name what is elsewhere.
var keptOptions = []string{
	// of every mount (mount(8))
	"nodev", "nosuid", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "lazytime",
	"context", "fscontext", "defcontext", "rootcontext",
	// ext4(5)
	"data", "commit", "barrier", "nobarrier", "errors", "journal_checksum", "journal_async_commit", "delalloc", "nodelalloc",
	"auto_da_alloc", "noauto_da_alloc", "dioread_lock", "dioread_nolock", "stripe", "discard", "nodiscard", "user_xattr", "acl",
	// xfs(5)
	"allocsize", "inode32", "inode64", "largeio", "nolargeio", "swalloc", "wsync", "sunit", "swidth", "logbufs", "logbsize",
	"usrquota", "grpquota", "prjquota", "uquota", "gquota", "pquota", "uqnoenforce", "gqnoenforce", "pqnoenforce",
}

// fileSystem is the type and the options to mount a clone with.
type fileSystem struct {
	kind    string
	options []string
}

// fileSystemOf is that of a volume, which must be mounted where it was found.
func fileSystemOf(table mount.Table, volume snap.Volume, name string) (fileSystem, error) {
	on, err := table.Of(volume.Root)
	if err != nil {
		return fileSystem{}, err
	}
	found, err := deviceOf(volume.Root)
	if err != nil {
		return fileSystem{}, err
	}
	if found.name != name {
		return fileSystem{}, fault.New(fault.Storage, "mount it", "logical volume %s is not mounted at %s any more", volume.ID, volume.Root)
	}
	fs := fileSystem{kind: on.FSType}
	for option := range strings.SplitSeq(on.Options+","+on.VFSOptions, ",") {
		key, _, _ := strings.Cut(option, "=")
		// A value in quotes may hold a comma, at which it was torn here.
		if slices.Contains(keptOptions, key) && !slices.Contains(fs.options, option) && !strings.Contains(option, `"`) {
			fs.options = append(fs.options, option)
		}
	}
	return fs, nil
}

// String is how a snapshot's tag holds it; parseFileSystem reads that.
func (f fileSystem) String() string { return strings.Join(append([]string{f.kind}, f.options...), " ") }

func parseFileSystem(text string) fileSystem {
	words := strings.Fields(text)
	if len(words) == 0 {
		return fileSystem{}
	}
	return fileSystem{words[0], words[1:]}
}

// mountOptions are those for a copy that is mounted while the original is: XFS
// refuses the same UUID a second time (nouuid in xfs(5)).
func (f fileSystem) mountOptions() []string {
	if f.kind == "xfs" {
		return append([]string{"nouuid"}, f.options...)
	}
	return f.options
}
