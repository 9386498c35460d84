package config

import (
	"fmt"
	"regexp"
)

// LVM is what the driver for LVM needs to know; what is left out has the driver's
// default.
type LVM struct {
	// Size is the room of a classic snapshot: a size such as "10G" (without a unit,
	// MiB), or a share such as "20%ORIGIN" or "50%FREE".
	Size string `toml:"size"`
	// MaxDataPercent and MaxMetadataPercent are how full a thin pool may be for a
	// backup to begin.
	MaxDataPercent     float64 `toml:"max_data_percent"`
	MaxMetadataPercent float64 `toml:"max_metadata_percent"`
	// Instant is one instant over several volumes.
	Instant bool `toml:"instant"`
}

// lvmSize is what lvcreate takes as --size or --extents (lvcreate(8)).
var lvmSize = regexp.MustCompile(`^[1-9][0-9]*(\.[0-9]+)?([bBsSkKmMgGtTpPeE]|%(ORIGIN|FREE|VG|PVS))?$`)

func (l LVM) check() error {
	if l.Size != "" && !lvmSize.MatchString(l.Size) {
		return fmt.Errorf("storage.lvm.size is a size such as 10G or a share such as 20%%ORIGIN, not %q", l.Size)
	}
	for key, percent := range map[string]float64{"max_data_percent": l.MaxDataPercent, "max_metadata_percent": l.MaxMetadataPercent} {
		if !(percent >= 0 && percent <= 100) { // nan is neither
			return fmt.Errorf("storage.lvm.%s is from 1 to 100, not %v", key, percent)
		}
	}
	return nil
}
