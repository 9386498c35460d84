package lvm

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// located is a path and where it lies.
type located struct {
	path   snap.Path
	mount  *mountinfo.Info
	device device
	// inside is the path from the file system's own root.
	inside string
}

// Resolve finds the logical volumes that paths lie on, whose file systems are on
// the whole of one. It makes sure that there is room for their snapshots too: this
// is the last moment before the server enters backup mode. A volume's ID is
// GROUP/NAME, its Place GROUP/POOL, or GROUP for a classic one.
func (d Driver) Resolve(ctx context.Context, paths []snap.Path) ([]snap.Volume, error) {
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	var mine []located
	var groups []string
	for _, path := range paths {
		at, is, err := locate(table, path)
		if err != nil {
			return nil, err
		}
		if is {
			mine = append(mine, at)
			group, _, _ := splitDevice(at.device.name)
			groups = append(groups, group)
		}
	}
	if len(mine) == 0 {
		return nil, nil
	}
	if _, err := exec.LookPath("lvs"); err != nil {
		return nil, fault.New(fault.Storage, "install lvm2", "%s lies on the logical volume %s, but there is no lvs program", mine[0].path.Path, mine[0].device.name)
	}
	slices.Sort(groups)
	rows, err := report(ctx, slices.Compact(groups)...)
	if err != nil {
		return nil, err
	}
	volumes, chosen, err := volumesOf(table, mine, rows)
	if err != nil {
		return nil, err
	}
	return volumes, d.checkRoom(chosen, rows)
}

// locate tells whether a path lies on a logical volume of its own.
func locate(table mount.Table, path snap.Path) (located, bool, error) {
	on, err := table.Of(path.Path)
	if err != nil {
		return located{}, false, err
	}
	found, err := deviceOf(path.Path)
	if err != nil {
		return located{}, false, err
	}
	if !found.isVolume() {
		return located{}, false, checkAbove(found, on)
	}
	relative, err := filepath.Rel(on.Mountpoint, path.Path)
	if err != nil {
		return located{}, false, err
	}
	at := located{path: path, mount: on, device: found, inside: filepath.Join(on.Root, relative)}
	return at, true, checkFileSystem(found, on)
}

// checkAbove refuses a device that is no logical volume but lies on one.
func checkAbove(above device, on *mountinfo.Info) error {
	below, is, err := above.volumeBelow()
	if err != nil || !is {
		return err
	}
	group, name, _ := splitDevice(below.name)
	if strings.HasPrefix(above.uuid, "CRYPT-") {
		return fault.New(fault.Storage, "have the encryption below LVM, under its physical volumes, where this driver does not meet it",
			"%s is on %s, which encrypts the logical volume %s/%s: a clone of that could not be opened without the key", on.Mountpoint, above.name, group, name)
	}
	return fault.New(fault.Storage, "have the file system on the logical volume itself",
		"%s is on %s, which is something else on top of the logical volume %s/%s", on.Mountpoint, on.Source, group, name)
}

// volumesOf puts paths on one volume together. With each volume comes its row.
func volumesOf(table mount.Table, mine []located, rows []row) ([]snap.Volume, []row, error) {
	var volumes []snap.Volume
	var chosen []row
	for _, at := range mine {
		index := slices.IndexFunc(rows, func(r row) bool { return r.deviceUUID() == at.device.uuid })
		if index < 0 {
			return nil, nil, fault.New(fault.Storage, "see what lvs says of it", "%s lies on %s, of which lvs knows nothing", at.path.Path, at.device.name)
		}
		r := rows[index]
		known := slices.IndexFunc(volumes, func(v snap.Volume) bool { return v.ID == r.id() })
		if known < 0 {
			known = len(volumes)
			place := r.Group
			if r.thin() {
				place += "/" + r.Pool
			}
			volumes = append(volumes, snap.Volume{Driver: Name, ID: r.id(), Root: rootOf(table, at), Place: place})
			chosen = append(chosen, r)
		}
		volume := &volumes[known]
		volume.Paths = append(volume.Paths, at.path)
		if filepath.Join("/", strings.TrimPrefix(at.path.Path, volume.Root)) != at.inside || !snap.IsBelow(at.path.Path, volume.Root) {
			if volume.Inside == nil {
				volume.Inside = map[string]string{}
			}
			volume.Inside[at.path.Path] = strings.TrimPrefix(at.inside, "/")
		}
	}
	return volumes, chosen, nil
}

// rootOf is where the root of the volume's file system is mounted: above the path,
// or else anywhere. Of a bind mount of a part of it, that may be nowhere.
func rootOf(table mount.Table, at located) string {
	if at.mount.Root == "/" {
		return at.mount.Mountpoint
	}
	for _, other := range table {
		if other.Root == "/" && other.Major == at.mount.Major && other.Minor == at.mount.Minor {
			return other.Mountpoint
		}
	}
	return at.mount.Mountpoint
}
