package lvm

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pgsnap/internal/mount"
)

// findUsers names what has a device open: where it is mounted, and the devices on
// top of it.
func findUsers(name string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat("/dev/mapper/"+name, &stat); err != nil {
		return "", err
	}
	number := numberOf(stat.Rdev)
	table, err := mount.Read()
	if err != nil {
		return "", err
	}
	var users []string
	for _, mounted := range table {
		if numberOf(unix.Mkdev(uint32(mounted.Major), uint32(mounted.Minor))) == number {
			users = append(users, "the mount at "+mounted.Mountpoint)
		}
	}
	holders, err := device{number: number}.neighbours("holders")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, holder := range holders {
		users = append(users, "the device "+holder.name)
	}
	return strings.Join(slices.Compact(users), ", "), nil
}
