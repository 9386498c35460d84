// Package lvm is the driver for file systems on LVM logical volumes, thin and
// classic. A snapshot is a logical volume in the same volume group that carries
// pgsnap's tags; only such ones are ever removed.
//
// Thin: the snapshot is read-only and not activated, a clone of it is a writable
// thin snapshot of the snapshot. Classic: the snapshot holds what was overwritten
// in its origin since; once that is more than it has room for, it is lost. Its
// clone is a copy of its files, since device-mapper has no snapshot of a snapshot
// that would outlive either.
package lvm

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"pgsnap/internal/command"
	"pgsnap/internal/snap"
)

// Name is what configuration and catalog call the driver.
const Name = "lvm"

// The defaults of Driver's fields.
const (
	// DefaultSize is the room of a classic snapshot.
	DefaultSize = "20%ORIGIN"
	// DefaultPercent is the limit on data and on metadata of a thin pool.
	DefaultPercent = 90
)

// Driver is a snap.Driver. It needs root and the programs of lvm2. Its zero value
// works with the defaults.
type Driver struct {
	// Size is the room of a classic snapshot: a size with a unit as lvcreate's -L
	// takes it ("10G"), or a share as its -l takes it ("20%ORIGIN", "50%FREE").
	Size string
	// MaxDataPercent and MaxMetadataPercent are how full a thin pool may be when a
	// backup begins.
	MaxDataPercent, MaxMetadataPercent float64
	// Instant asks for one instant over several volumes.
	Instant bool
	// Holder is how to start a process that runs Hold: program and arguments. It
	// is needed for Instant.
	Holder []string
}

// Info says what the driver can do.
func (d Driver) Info() snap.Info {
	return snap.Info{Name: Name, Instant: true, Metadata: true}
}

func (d Driver) size() string {
	if d.Size == "" {
		return DefaultSize
	}
	return d.Size
}

func limit(percent float64) float64 {
	if percent == 0 {
		return DefaultPercent
	}
	return percent
}

// The mark of whatever pgsnap makes, and nothing else carries.
const mark = "pgsnap"

// run runs a program of lvm2. It is never killed: a killed one may leave devices
// suspended, on which every process that writes then hangs. SIGTERM, which it gets
// when ctx is done, it puts off while it holds the group's lock (block_signals in
// lib/misc/lvm-signal.c), and that is as long as it changes anything.
func run(ctx context.Context, args ...string) ([]byte, error) {
	out, err := command.Run(ctx, args, patient)
	return out, typed(err)
}

// patient is a command.Option; see run.
func patient(cmd *exec.Cmd) {
	cmd.WaitDelay = 0
	cmd.Env = append(cmd.Env, "LVM_SUPPRESS_FD_WARNINGS=1")
}

// isThin tells the kind of a volume by where its snapshots go: into GROUP/POOL,
// or, classic, into the GROUP.
func isThin(volume snap.Volume) bool { return strings.Contains(volume.Place, "/") }

// split takes GROUP/NAME apart. Neither can hold a slash.
func split(id string) (group, name string) {
	group, name, _ = strings.Cut(id, "/")
	return group, name
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
