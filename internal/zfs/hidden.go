package zfs

import (
	"context"
	"slices"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/snap"
)

// checkHidden refuses datasets that belong among the cluster's files and are not
// mounted there: those whose mount point is below one of the paths, with nothing
// mounted at it, and those that lie in a volume's dataset and are mounted by hand
// (mountpoint=legacy), of which nobody knows where. canmount=off and clones hold no
// part of a cluster; any other dataset is let off by the property pgsnap:ignore.
func checkHidden(ctx context.Context, table mount.Table, volumes []snap.Volume, paths []snap.Path) error {
	datasets, err := tool{}.get(ctx, poolsOf(datasetsOf(volumes)), "-r", "-t", "filesystem",
		"mountpoint,canmount,mounted,origin,keystatus,encryptionroot,"+propIgnore)
	if err != nil {
		return err
	}
	for _, dataset := range datasets {
		p := dataset.properties
		ignored := p[propIgnore].text != "-" && p[propIgnore].text != "off"
		if ignored || p["canmount"].text == "off" || p["mounted"].text == "yes" || !isMissing(table, volumes, paths, dataset) {
			continue
		}
		hint := "mount it"
		switch at := p["mountpoint"].text; {
		case p["keystatus"].text == "unavailable":
			hint = "load its key (zfs load-key " + p["encryptionroot"].text + ") and mount it (zfs mount " + dataset.name + ")"
		case strings.HasPrefix(at, "/"):
			hint = "mount it (zfs mount " + dataset.name + ")"
		}
		return fault.New(fault.Storage, hint+", or if it is no part of the cluster: zfs set canmount=off "+dataset.name+", or zfs set "+propIgnore+"=on "+dataset.name,
			"dataset %s (mountpoint %s) lies among the cluster's and is not mounted", dataset.name, p["mountpoint"].text)
	}
	return nil
}

// isMissing tells whether a dataset that is not mounted leaves a hole in a cluster.
func isMissing(table mount.Table, volumes []snap.Volume, paths []snap.Path, dataset thing) bool {
	at := dataset.properties["mountpoint"].text
	if at == "legacy" {
		return dataset.properties["origin"].text == "-" && slices.ContainsFunc(volumes, func(v snap.Volume) bool {
			return strings.Contains(v.ID, "/") && strings.HasPrefix(dataset.name, v.ID+"/")
		})
	}
	if !strings.HasPrefix(at, "/") { // none
		return false
	}
	for _, mounted := range table {
		if mounted.Mountpoint == at {
			return false
		}
	}
	_, needed := snap.NestedPath(paths, at)
	return needed
}
