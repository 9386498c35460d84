package zfs

import (
	"context"
	"errors"
	"slices"
	"strings"

	gozfs "github.com/mistifyio/go-zfs/v3"

	"pgsnap/internal/command"
	"pgsnap/internal/fault"
)

// tool is all of ZFS that the rest of the package sees: package go-zfs where that
// has what is needed, and the program zfs beside it.
type tool struct{}

// zfs runs the program. A call into the kernel can't be interrupted: one that ctx
// ends has happened or not when this returns.
func (tool) zfs(ctx context.Context, args ...string) ([]byte, error) {
	out, err := command.Run(ctx, append([]string{"zfs"}, args...))
	return out, typed(err)
}

// viaLibrary runs a call of go-zfs, which knows no context, and so is not interrupted.
func (tool) viaLibrary(ctx context.Context, call func() error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := call()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var failed *gozfs.Error
	if errors.As(err, &failed) {
		args := strings.Fields(failed.Debug) // only to be shown
		err = &command.Error{Args: args, ExitCode: 1, Stderr: strings.TrimSpace(failed.Stderr), Err: failed.Err}
	}
	return typed(err)
}

// snapshot cuts datasets of one pool at one instant: all or none ("Snapshots are
// taken atomically", zfs-snapshot(8)). The properties are on all of them.
func (t tool) snapshot(ctx context.Context, name string, datasets, properties []string) error {
	args := []string{"snapshot"}
	for _, property := range properties {
		args = append(args, "-o", property)
	}
	for _, dataset := range datasets {
		args = append(args, dataset+"@"+name)
	}
	_, err := t.zfs(ctx, args...)
	return err
}

// set sets user properties, each NAME=VALUE, on a snapshot or dataset.
func (t tool) set(ctx context.Context, properties []string, on string) error {
	_, err := t.zfs(ctx, append(append([]string{"set"}, properties...), on)...)
	return err
}

// hold keeps snapshots of one pool from being destroyed. Those that are held
// already stay so.
func (t tool) hold(ctx context.Context, snapshots ...string) error {
	_, err := t.zfs(ctx, append([]string{"hold", tag}, snapshots...)...)
	if !errors.Is(err, errHeld) {
		return err
	}
	// One that is held already keeps the others from it.
	for _, snapshot := range snapshots {
		if _, err := t.zfs(ctx, "hold", tag, snapshot); err != nil && !errors.Is(err, errHeld) {
			return err
		}
	}
	return nil
}

// release takes the hold away; no hold is success.
func (t tool) release(ctx context.Context, snapshot string) error {
	_, err := t.zfs(ctx, "release", tag, snapshot)
	if errors.Is(err, errNotHeld) {
		return nil
	}
	return err
}

// holds are the tags that a snapshot is held with.
func (t tool) holds(ctx context.Context, snapshot string) ([]string, error) {
	out, err := t.zfs(ctx, "holds", "-H", snapshot)
	var tags []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(line, "\t"); len(fields) > 1 {
			tags = append(tags, fields[1])
		}
	}
	return tags, err
}

// destroy destroys one dataset or one snapshot, and nothing that hangs on it.
func (t tool) destroy(ctx context.Context, name string) error {
	if strings.ContainsAny(name, "%,#") {
		return fault.New(fault.Storage, "", "%q is not the name of one dataset or snapshot", name) // zfs-destroy(8): ranges
	}
	return t.viaLibrary(ctx, func() error { return (&gozfs.Dataset{Name: name}).Destroy(gozfs.DestroyDefault) })
}

// clone makes a clone with properties, in a dataset that exists. (go-zfs asks for the
// new dataset at once, and can't read a mount point with a tab or newline in it.)
func (t tool) clone(ctx context.Context, snapshot, name string, properties map[string]string) error {
	args := []string{"clone"}
	for key, value := range properties {
		args = append(args, "-o", key+"="+value)
	}
	_, err := t.zfs(ctx, append(args, snapshot, name)...)
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// checkPool makes sure that a pool is there, and can be written to if it has to be.
func (t tool) checkPool(ctx context.Context, name string, write bool) error {
	var pool *gozfs.Zpool
	err := t.viaLibrary(ctx, func() (err error) {
		pool, err = gozfs.GetZpool(name)
		return err
	})
	switch {
	case errors.Is(err, errNoPool):
		return fault.Wrap(err, fault.Storage, "import it: zpool import "+name, "ZFS pool %s is not imported", name)
	case err != nil || !write:
		return err
	case pool.ReadOnly:
		return fault.New(fault.Storage, "export it, and import it without readonly=on", "ZFS pool %s is imported read-only", name)
	case slices.Contains([]string{"SUSPENDED", gozfs.ZpoolFaulted, gozfs.ZpoolUnavail}, pool.Health):
		return fault.New(fault.Storage, "see zpool status "+name+", bring its devices back, and then: zpool clear "+name, "ZFS pool %s is %s", name, pool.Health)
	}
	return nil
}
