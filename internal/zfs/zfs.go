// Package zfs is the driver for OpenZFS: datasets with a file system of ZFS's own,
// and zvols that carry ext4 or XFS. A snapshot of all of a cluster's datasets in a
// pool is of one instant; several pools are cut one after another. A snapshot says
// in user properties what it is, and is held for as long as its backup exists.
//
// What is said here of ZFS was read in the manual pages and the source of OpenZFS
// 2.1.11, and seen to be so there.
package zfs

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"

	"pgsnap/internal/snap"
)

// Name is what configuration and catalog call the driver.
const Name = "zfs"

// Driver is a snap.Driver. It needs the programs zfs and zpool, and root or what
// zfs-allow(8) delegates; mounting takes root on Linux in any case. Its zero value
// works.
//
// A volume's ID is the name of its dataset, a snapshot's DATASET@NAME, both as they
// were when the backup was taken. A snapshot is found again after its dataset was
// renamed, or the copy of it promoted.
type Driver struct {
	// Clones is a dataset of type filesystem below which the clones of snapshots in
	// its pool are made. Others are made beside the dataset that they are of.
	Clones string
}

// Info says what the driver can do.
func (d Driver) Info() snap.Info {
	return snap.Info{Name: Name, Instant: true, Metadata: true}
}

// split takes DATASET@NAME apart; without @, name is empty.
func split(id string) (dataset, name string) {
	dataset, name, _ = strings.Cut(id, "@")
	return dataset, name
}

// poolOf is the pool of a dataset or snapshot.
func poolOf(name string) string {
	if end := strings.IndexAny(name, "/@"); end >= 0 {
		return name[:end]
	}
	return name
}

// parentOf is the dataset in which a dataset lies; of a pool's first one, itself.
func parentOf(dataset string) string {
	if end := strings.LastIndexByte(dataset, '/'); end >= 0 {
		return dataset[:end]
	}
	return dataset
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
