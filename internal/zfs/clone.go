package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// Clone makes a clone of a snapshot, to be mounted at the target. Its mountpoint is
// the target, with canmount=noauto: after a boot, zfs mount brings it back.
func (d Driver) Clone(ctx context.Context, snapshot snap.Snapshot, name, target string) (clone snap.Clone, err error) {
	clone = snap.Clone{Driver: Name, Name: name, SnapshotID: snapshot.ID, Target: target}
	if exists(target) {
		return clone, fmt.Errorf("%s: %w", target, fs.ErrExist)
	}
	if os.Geteuid() != 0 {
		return clone, fault.New(fault.Usage, "run it as root", "a clone of %s has to be mounted, which only root may do on Linux", snapshot.ID)
	}
	at, err := d.locate(ctx, snap.Volume{ID: snapshot.VolumeID}, snapshot.Name)
	if err != nil {
		return clone, err
	}
	if at == nil || at.properties.ownText(propSnapshot) != snapshot.Name {
		return clone, fmt.Errorf("%s: %w", snapshot.ID, snap.ErrNoSnapshot)
	}
	if at.properties["keystatus"].text == "unavailable" {
		return clone, fault.New(fault.Storage, "load it: zfs load-key "+at.properties["encryptionroot"].text,
			"snapshot %s is encrypted, and its key is not loaded", at.name)
	}
	origin, _ := split(at.name)
	clone.ID = d.cloneID(origin, clone)
	properties, zvol, err := d.cloneProperties(ctx, origin, clone)
	if err != nil {
		return clone, err
	}
	defer func() {
		// One of that name that was there before stays.
		if err != nil && !errors.Is(err, errExists) {
			err = errors.Join(err, d.Release(context.WithoutCancel(ctx), clone))
		}
	}()
	if err := (tool{}).clone(ctx, at.name, clone.ID, properties); err != nil {
		return clone, err
	}
	clone.Mount = &snap.Mount{Source: clone.ID, FSType: "zfs", Options: []string{"zfsutil"}}
	if zvol {
		clone.Mount, err = zvolMount(ctx, clone.ID)
	}
	return clone, err
}

// cloneID is the name of a clone, which can be told from what every clone's record
// holds. Beside what it is of, it inherits the same.
func (d Driver) cloneID(origin string, clone snap.Clone) string {
	parent := parentOf(origin)
	if d.Clones != "" && poolOf(d.Clones) == poolOf(origin) {
		parent = d.Clones
	}
	return parent + "/pgsnap-" + clone.Name + "-" + digest(clone.SnapshotID)
}

// cloned are the properties that a clone has as its original has them, since a
// clone inherits from where it lies, and not from what it is of (zfs-clone(8)).
// Left out are those that reserve or limit space, mount, share, or are fixed.
var cloned = []string{
	"recordsize", "compression", "checksum", "copies", "dedup", "atime", "relatime", "sync", "logbias", "primarycache", "secondarycache",
	"redundant_metadata", "dnodesize", "special_small_blocks", "xattr", "acltype", "aclmode", "aclinherit", "devices", "exec", "setuid", "snapdir",
}

// cloneProperties are those that a clone is made with; zvol tells what it will be.
func (d Driver) cloneProperties(ctx context.Context, origin string, clone snap.Clone) (set map[string]string, zvol bool, err error) {
	names := []string{origin}
	near := parentOf(clone.ID) == parentOf(origin)
	if !near {
		names = append(names, parentOf(clone.ID))
	}
	things, err := tool{}.get(ctx, names, "-t", "filesystem,volume", "type,"+strings.Join(cloned, ","))
	if errors.Is(err, errNotFound) && len(things) > 0 && !near {
		return nil, false, fault.Wrap(err, fault.Usage, "make it (zfs create), or mend clones in [storage.zfs]", "the dataset for clones")
	}
	if err != nil {
		return nil, false, err
	}
	set = map[string]string{
		propClone: clone.Name, propOf: clone.SnapshotID, propTarget: clone.Target,
		// The copy's volumes are nobody's to snapshot by the hour, which would keep it
		// from being released (zfs-auto-snapshot(8)).
		"com.sun:auto-snapshot": "false",
	}
	from := properties{}
	for _, one := range things { // sorted by zfs
		if one.name == origin {
			from = one.properties
		}
	}
	zvol = from["type"].text == "volume"
	for _, name := range cloned {
		if v := from[name]; v.own() || !near && strings.HasPrefix(v.source, "inherited") {
			set[name] = v.text
		}
	}
	set["readonly"] = "off"
	if zvol {
		set["volmode"] = "dev" // nobody is to look for partitions on it
	} else {
		set["mountpoint"], set["canmount"] = clone.Target, "noauto"
	}
	return set, zvol, nil
}

// zvolMount is how to mount what a clone of a zvol holds, beside its original: XFS
// refuses the same UUID a second time (nouuid in xfs(5)).
func zvolMount(ctx context.Context, dataset string) (*snap.Mount, error) {
	device, err := waitForZvol(ctx, dataset)
	if err != nil {
		return nil, err
	}
	kind, err := fileSystemOn(device)
	mount := &snap.Mount{Source: device, FSType: kind}
	if kind == "xfs" {
		mount.Options = []string{"nouuid"}
	}
	return mount, err
}

// Release destroys a clone.
func (d Driver) Release(ctx context.Context, clone snap.Clone) error {
	name, err := d.findClone(ctx, clone)
	if err != nil || name == "" {
		return err
	}
	err = ignoreAbsent(tool{}.destroy(ctx, name))
	if !errors.Is(err, errInUse) {
		return err
	}
	hint := "end the processes that use it (fuser -m names them)"
	below, listErr := tool{}.get(ctx, []string{name}, "-r", "-t", "all", "type")
	var names []string
	for _, one := range below {
		if one.name != name {
			names = append(names, one.name)
		}
	}
	if listErr == nil && len(names) > 0 {
		hint = "destroy it with all of that, if nobody needs it: zfs destroy -r " + name
		err = fault.Wrap(err, fault.Busy, hint, "the copy has snapshots or datasets of its own: %s", strings.Join(names[:min(len(names), 5)], ", "))
	}
	return fault.Wrap(err, fault.Busy, hint, "destroy %s", name)
}

// findClone is the name of the dataset that a clone is by now; empty where there is
// none.
func (d Driver) findClone(ctx context.Context, clone snap.Clone) (string, error) {
	origin, _ := split(clone.SnapshotID)
	candidates := []string{d.cloneID(origin, clone)}
	if clone.ID != "" {
		candidates = []string{clone.ID}
	}
	is := func(t thing) bool {
		return t.properties.ownText(propClone) == clone.Name && t.properties.ownText(propOf) == clone.SnapshotID
	}
	const own = propClone + "," + propOf
	things, err := tool{}.get(ctx, candidates, "-t", "filesystem,volume", "-s", "local", own)
	if err != nil && !errors.Is(err, errNotFound) {
		return "", err
	}
	index := slices.IndexFunc(things, is)
	if index >= 0 {
		return things[index].name, nil
	}
	// It, or its snapshot, may have been renamed.
	pool := poolOf(candidates[0])
	if err := (tool{}).checkPool(ctx, pool, false); err != nil {
		return "", err
	}
	if things, err = (tool{}).get(ctx, []string{pool}, "-r", "-t", "filesystem,volume", "-s", "local", own); err != nil {
		return "", err
	}
	if index = slices.IndexFunc(things, is); index < 0 {
		return "", nil
	}
	return things[index].name, nil
}
