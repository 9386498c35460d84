package main

import (
	"errors"
	"os"

	"pgsnap/internal/config"
	"pgsnap/internal/lvm"
	"pgsnap/internal/snap"
)

// lvmDriver is the driver for LVM as it is configured.
func lvmDriver(c config.LVM) snap.Driver {
	driver := lvm.Driver{
		Size: c.Size, MaxDataPercent: c.MaxDataPercent, MaxMetadataPercent: c.MaxMetadataPercent, Instant: c.Instant,
	}
	if program, err := os.Executable(); err == nil {
		driver.Holder = []string{program, "lvm-hold"}
	}
	return driver
}

// lvmHoldCommand is the process that stops file systems for an instant over
// several volumes, and lets them go on whatever becomes of pgsnap.
type lvmHoldCommand struct {
	Args []string `arg:"" optional:""`
}

func (c *lvmHoldCommand) Run(*app) error {
	if code := lvm.Hold(c.Args); code != 0 {
		return errors.New("the volumes were not held")
	}
	return nil
}
