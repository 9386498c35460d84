package lvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// device is a block device as the kernel knows it.
type device struct {
	// number is MAJOR:MINOR.
	number string
	// name and uuid are the device-mapper's; empty for a device of another kind.
	name, uuid string
}

// blockDevices is where the kernel shows block devices by number
// (Documentation/ABI/stable/sysfs-block; dm/ is of testing/sysfs-block-dm).
const blockDevices = "/sys/dev/block"

func readDevice(number string) (device, error) {
	d := device{number: number}
	dir := filepath.Join(blockDevices, number, "dm")
	name, err := os.ReadFile(filepath.Join(dir, "name"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	uuid, uuidErr := os.ReadFile(filepath.Join(dir, "uuid"))
	if err := errors.Join(err, uuidErr); err != nil {
		return d, err
	}
	d.name, d.uuid = strings.TrimSpace(string(name)), strings.TrimSpace(string(uuid))
	return d, nil
}

// deviceOf is the device that the file system at a path says it is on.
func deviceOf(path string) (device, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return device{}, fmt.Errorf("%s: %w", path, err)
	}
	return readDevice(numberOf(stat.Dev))
}

func numberOf(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// isVolume tells whether the device is a logical volume, and not a part of one or
// something of another kind: those have a layer behind the UUID.
func (d device) isVolume() bool {
	const length = len("LVM-") + 2*32
	return strings.HasPrefix(d.uuid, "LVM-") && len(d.uuid) == length
}

// neighbours are the devices that this one lies on ("slaves"), or that lie on it
// ("holders").
func (d device) neighbours(kind string) ([]device, error) {
	entries, err := os.ReadDir(filepath.Join(blockDevices, d.number, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []device
	for _, entry := range entries {
		number, err := os.ReadFile(filepath.Join(blockDevices, d.number, kind, entry.Name(), "dev"))
		if err != nil {
			return nil, err
		}
		next, err := readDevice(strings.TrimSpace(string(number)))
		if err != nil {
			return nil, err
		}
		if next.name == "" {
			next.name = entry.Name()
		}
		found = append(found, next)
	}
	return found, nil
}

// volumeBelow is a logical volume that the device lies on, be it through others.
func (d device) volumeBelow() (device, bool, error) {
	below, err := d.neighbours("slaves")
	if err != nil {
		return device{}, false, err
	}
	for _, next := range below {
		if next.isVolume() {
			return next, true, nil
		}
		if found, is, err := next.volumeBelow(); err != nil || is {
			return found, is, err
		}
	}
	return device{}, false, nil
}
