package zfs

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
	path    snap.Path
	mount   *mountinfo.Info
	dataset string
	// inside is the path from the file system's own root.
	inside string
}

// Resolve finds the datasets and zvols that paths lie on, and makes sure that their
// pools can take snapshots and that no dataset belongs among the cluster's files
// which is not mounted there.
func (d Driver) Resolve(ctx context.Context, paths []snap.Path) ([]snap.Volume, error) {
	table, err := mount.Read()
	if err != nil {
		return nil, err
	}
	var volumes []snap.Volume
	for _, path := range paths {
		at, err := locate(table, path)
		if err != nil {
			return nil, err
		}
		if at.dataset != "" {
			volumes = add(volumes, table, at)
		}
	}
	if len(volumes) == 0 {
		return nil, nil
	}
	if _, err := exec.LookPath("zfs"); err != nil {
		return nil, fault.New(fault.Storage, "install zfsutils-linux", "%s lies on ZFS, but there is no zfs program", volumes[0].Root)
	}
	for _, pool := range poolsOf(datasetsOf(volumes)) {
		if err := (tool{}).checkPool(ctx, pool, true); err != nil {
			return nil, err
		}
	}
	if err := checkAllowed(ctx, volumes); err != nil {
		return nil, err
	}
	return volumes, checkHidden(ctx, table, volumes, paths)
}

// locate tells whether a path lies on ZFS, and where.
func locate(table mount.Table, path snap.Path) (located, error) {
	on, err := table.Of(path.Path)
	if err != nil {
		return located{}, err
	}
	at := located{path: path, mount: on}
	if at.dataset, err = datasetOf(on); err != nil || at.dataset == "" {
		return located{}, err
	}
	relative, err := filepath.Rel(on.Mountpoint, path.Path)
	at.inside = filepath.Join(on.Root, relative)
	return at, err
}

// datasetOf is the dataset or zvol that is mounted; empty where that is something
// else.
func datasetOf(on *mountinfo.Info) (string, error) {
	if on.FSType == "zfs" {
		if strings.Contains(on.Source, "@") {
			return "", fault.New(fault.Storage, "", "%s is in a snapshot, %s", on.Mountpoint, on.Source)
		}
		return on.Source, nil
	}
	if on.FSType != "xfs" && !strings.HasPrefix(on.FSType, "ext") {
		return "", nil
	}
	zvol, err := zvolOf(on)
	if err != nil || zvol == "" {
		return "", err
	}
	return zvol, checkFileSystem(on, zvol)
}

// checkMounted makes sure that a volume is still mounted where it was found, and
// tells whether it is a zvol.
func checkMounted(table mount.Table, volume snap.Volume) (zvol bool, err error) {
	on, err := table.Of(volume.Root)
	if err != nil {
		return false, err
	}
	dataset, err := datasetOf(on)
	if err == nil && dataset != volume.ID {
		err = fault.New(fault.Storage, "mount it", "ZFS dataset %s is not mounted at %s any more", volume.ID, volume.Root)
	}
	return on.FSType != "zfs", err
}

// add puts paths on one dataset together.
func add(volumes []snap.Volume, table mount.Table, at located) []snap.Volume {
	known := slices.IndexFunc(volumes, func(v snap.Volume) bool { return v.ID == at.dataset })
	if known < 0 {
		known = len(volumes)
		volumes = append(volumes, snap.Volume{Driver: Name, ID: at.dataset, Root: rootOf(table, at)})
	}
	volume := &volumes[known]
	volume.Paths = append(volume.Paths, at.path)
	if !snap.IsBelow(at.path.Path, volume.Root) || filepath.Join("/", strings.TrimPrefix(at.path.Path, volume.Root)) != at.inside {
		if volume.Inside == nil {
			volume.Inside = map[string]string{}
		}
		volume.Inside[at.path.Path] = filepath.Clean(strings.TrimPrefix(at.inside, "/"))
	}
	return volumes
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
