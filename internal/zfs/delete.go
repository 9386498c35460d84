package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// Delete takes pgsnap's hold off a volume's snapshot and destroys it, if it carries
// the mark and nothing else is in the way.
func (d Driver) Delete(ctx context.Context, volume snap.Volume, name string) error {
	at, err := d.locate(ctx, volume, name)
	if err != nil || at == nil {
		return err
	}
	return at.remove(ctx)
}

// remove destroys a snapshot that describe has found.
func (at *thing) remove(ctx context.Context) error {
	if _, name := split(at.name); at.properties.ownText(propSnapshot) != name {
		return fault.New(fault.Storage, "destroy it yourself, if nobody needs it",
			"snapshot %s does not carry the property %s: it is not pgsnap's", at.name, propSnapshot)
	}
	if err := checkFree(ctx, at); err != nil {
		return err
	}
	held := at.properties["userrefs"].text != "0"
	if held {
		if err := (tool{}).release(ctx, at.name); err != nil {
			return ignoreAbsent(err)
		}
	}
	err := ignoreAbsent(tool{}.destroy(ctx, at.name))
	if err != nil && held {
		// It stays, and its backup with it.
		err = errors.Join(err, tool{}.hold(context.WithoutCancel(ctx), at.name))
	}
	return err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, errNotFound) {
		return nil
	}
	return err
}

// locate finds a volume's snapshot, wherever it is by now, or what has its name
// where it was made; nil where there is none.
func (d Driver) locate(ctx context.Context, volume snap.Volume, name string) (*thing, error) {
	at, err := describe(ctx, volume.ID+"@"+name)
	if at != nil || err != nil {
		return at, err
	}
	all, err := d.find(ctx, []snap.Volume{volume})
	if err != nil {
		return nil, err
	}
	index := slices.IndexFunc(all, func(f found) bool { return f.Name == name })
	if index < 0 {
		return nil, nil
	}
	return describe(ctx, all[index].name)
}

// describe is a snapshot, or nil where it is not there.
func describe(ctx context.Context, name string) (*thing, error) {
	things, err := describeAll(ctx, name)
	if err != nil || len(things) == 0 {
		return nil, err
	}
	return &things[0], nil
}

// describeAll are those snapshots that are there, with what has to be known to
// destroy or clone them.
func describeAll(ctx context.Context, names ...string) ([]thing, error) {
	things, err := tool{}.get(ctx, names, "-t", "snapshot",
		strings.Join([]string{propSnapshot, propCut, "userrefs", "clones", "keystatus", "encryptionroot"}, ","))
	return things, ignoreAbsent(err)
}

// checkFree makes sure that a snapshot has neither clones nor holds of others.
func checkFree(ctx context.Context, at *thing) error {
	if clones := at.properties["clones"].text; clones != "" && clones != "-" {
		var names []string
		for clone := range strings.SplitSeq(clones, ",") {
			names = append(names, nameClone(ctx, clone))
		}
		return fault.New(fault.Busy, "release the copies first (pgsnap release DESTINATION), or destroy the datasets if they are not pgsnap's",
			"snapshot %s has clones: %s", at.name, strings.Join(names, ", "))
	}
	if at.properties["userrefs"].text == "0" {
		return nil
	}
	tags, err := tool{}.holds(ctx, at.name)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(tags, func(t string) bool { return t == tag })
	if len(others) > 0 {
		return fault.New(fault.Busy, fmt.Sprintf("zfs release %q %q", others[0], at.name),
			"snapshot %s is held by others, with the tags: %s", at.name, strings.Join(others, ", "))
	}
	return nil
}

// nameClone says what a clone is for, as far as that is known.
func nameClone(ctx context.Context, name string) string {
	things, err := tool{}.get(ctx, []string{name}, "mountpoint,"+propTarget)
	if err != nil || len(things) == 0 {
		return name
	}
	at := things[0].properties.ownText(propTarget)
	if at == "" {
		at = things[0].properties["mountpoint"].text
	}
	if strings.HasPrefix(at, "/") {
		return fmt.Sprintf("%s at %s", name, at)
	}
	return name
}
