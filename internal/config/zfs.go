package config

import (
	"fmt"
	"regexp"
)

// ZFS is what the driver for ZFS needs to know.
type ZFS struct {
	// Clones is the dataset below which restored copies of its pool are made; empty:
	// beside the originals.
	Clones string `toml:"clones"`
}

// dataset is the name of a dataset: components of letters, digits and _ - . : or
// space ("ZFS Storage Pools" in zfs(8); valid_char in zfs_namecheck.c).
var dataset = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.: ]*(/[-A-Za-z0-9_.: ]+)*$`)

func (z ZFS) check() error {
	if z.Clones != "" && !dataset.MatchString(z.Clones) {
		return fmt.Errorf("storage.zfs.clones is a dataset such as tank/copies, not %q", z.Clones)
	}
	return nil
}
