package main

import (
	"context"
	"errors"
	"io"
	"os"

	"pgsnap/internal/btrfs"
	"pgsnap/internal/catalog"
	"pgsnap/internal/config"
	"pgsnap/internal/fault"
	"pgsnap/internal/lvm"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
	"pgsnap/internal/zfs"
)

const defaultConfig = config.DefaultPath

// The one table of exit codes; a script may rely on them.
const exitCodes = `0 done · 1 failed · 2 wrong command line or configuration · 3 the server is down or refuses ·
4 storage or catalog failed or is full · 5 not found · 6 in use by somebody else · 130 interrupted.`

func exitCode(err error) int {
	if errors.Is(err, context.Canceled) {
		return 130
	}
	return map[fault.Kind]int{
		fault.Failed: 1, fault.Usage: 2, fault.Server: 3, fault.Storage: 4, fault.NotFound: 5, fault.Busy: 6,
	}[fault.KindOf(err)]
}

// app is what every command is given.
type app struct {
	ctx      context.Context
	line     *cli
	out      io.Writer
	errors   io.Writer
	progress *progress
}

// load reads the configuration and opens the catalog.
func (a *app) load() (config.Config, catalog.Catalog, error) {
	loaded, err := config.Load(a.line.Config)
	if err != nil {
		return loaded, catalog.Catalog{}, err
	}
	if a.line.Catalog != "" {
		loaded.Catalog = a.line.Catalog
	}
	return loaded, catalog.At(loaded.Catalog), nil
}

// allDrivers are all there are, the more particular first.
func allDrivers(c config.Config) []snap.Driver {
	return []snap.Driver{
		lvmDriver(c.Storage.LVM),
		zfs.Driver{Clones: c.Storage.ZFS.Clones},
		btrfs.Driver{Directory: c.Storage.Btrfs.Directory},
		reflink.Driver{Directory: c.Storage.Reflink.Directory},
	}
}

// takingDrivers are those that may snapshot a cluster: the configured one, or, on
// auto, each that works for this user.
func takingDrivers(c config.Config, name string) ([]snap.Driver, error) {
	var chosen []snap.Driver
	names := config.AutoDriver
	for _, driver := range allDrivers(c) {
		known := driver.Info().Name
		names += ", " + known
		privileged := (known == btrfs.Name || known == lvm.Name) && os.Geteuid() != 0
		if known == name || name == config.AutoDriver && !privileged {
			chosen = append(chosen, driver)
		}
	}
	if name == btrfs.Name && os.Geteuid() != 0 {
		return nil, fault.New(fault.Usage, "run pgsnap as root, or set driver = \"reflink\"", "driver btrfs needs root to remove snapshots again")
	}
	if len(chosen) == 0 {
		return nil, fault.New(fault.Usage, "driver is one of: "+names, "there is no driver %q", name)
	}
	return chosen, nil
}
