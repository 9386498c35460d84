package lvm

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// longestDevice is how long a device-mapper name can be: DM_NAME_LEN of
// linux/dm-ioctl.h, less the terminating zero.
const longestDevice = 127

// longestLayer is the longest of the suffixes that LVM adds to the device's name
// for the parts of a volume that is thin or has snapshots (-tpool, -real, -cow).
const longestLayer = len("-tpool")

// longestName is how long the name of a logical volume can be (lvm(8)).
const longestName = 127

// deviceName is the device-mapper's name of a volume: hyphens in the names are
// doubled, and a single one joins them (dm_build_dm_name in libdm-string.c).
func deviceName(group, name string) string {
	return double(group) + "-" + double(name)
}

func double(name string) string { return strings.ReplaceAll(name, "-", "--") }

// splitDevice is the other way round. A device of a volume's part has a layer
// behind a second single hyphen.
func splitDevice(device string) (group, name, layer string) {
	parts := []string{""}
	for rest := device; rest != ""; {
		last := &parts[len(parts)-1]
		switch {
		case strings.HasPrefix(rest, "--"):
			*last += "-"
			rest = rest[2:]
		case rest[0] == '-' && len(parts) < 3:
			parts = append(parts, "")
			rest = rest[1:]
		default:
			*last += rest[:1]
			rest = rest[1:]
		}
	}
	parts = append(parts, "", "")
	return parts[0], parts[1], parts[2]
}

// snapshotName is the name of the logical volume that is the snapshot of a volume:
// SNAPSHOT-VOLUME, and where that would be too long, a digest for the volume. The
// hyphen keeps both from making one of the words that LVM reserves, all of which
// begin with an underscore or stand at a name's beginning
// (apply_lvname_restrictions in lib/misc/lvm-string.c).
func snapshotName(snapshot, group, volume string) string {
	name := snapshot + "-" + volume
	if len(name) > longestName || len(deviceName(group, name))+longestLayer > longestDevice {
		return snapshot + "-" + digest(volume)
	}
	return name
}

// cloneName is the name of the logical volume that is a clone of a snapshot. It
// can be told from what every clone's record holds.
func cloneName(clone, snapshotID string) string {
	return mark + "-" + clone + "-" + digest(snapshotID)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
