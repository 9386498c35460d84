package zfs

import (
	"errors"
	"strings"

	"pgsnap/internal/command"
	"pgsnap/internal/fault"
)

// What zfs says that something is done about. Its exit code is 1 for all of it
// (zfs(8), EXIT STATUS), so only the text tells.
var (
	errNotFound  = errors.New("it does not exist")
	errNoPool    = errors.New("there is no such pool")
	errExists    = errors.New("there is one of that name already")
	errHeld      = errors.New("it is held already")
	errNotHeld   = errors.New("it is not held")
	errInUse     = errors.New("it is in use")
	errNoSpace   = errors.New("there is no space left")
	errReadOnly  = errors.New("the pool is read-only")
	errSuspended = errors.New("the pool is suspended")
	errDenied    = errors.New("it is not allowed")
	errNoKey     = errors.New("the encryption key is not loaded")
	errNoZFS     = errors.New("the kernel has no ZFS")
)

// phrases are parts of the messages and what they mean; the first that fits counts.
// They are of libzfs_error_description in lib/libzfs/libzfs_util.c, where nothing
// else is noted. OpenZFS brings no translations of them.
var phrases = []struct {
	text string
	err  error
	hint string
}{
	{"no such pool", errNoPool, ""},
	{"dataset does not exist", errNotFound, ""},
	{"could not find any snapshots to destroy", errNotFound, ""}, // cmd/zfs/zfs_main.c
	{"tag already exists on this dataset", errHeld, ""},
	{"no such tag on this dataset", errNotHeld, ""},
	{"already exists", errExists, ""},
	{"has dependent clones", errInUse, ""}, // cmd/zfs/zfs_main.c
	{"has children", errInUse, ""},         // cmd/zfs/zfs_main.c
	{"is busy", errInUse, ""},
	{"key not loaded", errNoKey, "load it with zfs load-key"}, // zfs_mount_at in lib/libzfs_mount.c
	{"out of space", errNoSpace, hintSpace},
	{"uota exceeded", errNoSpace, hintSpace}, // EDQUOT, as strerror has it too
	{"pool is read-only", errReadOnly, "export the pool, and import it without readonly=on"},
	{"is currently suspended", errSuspended, "see zpool status, bring the pool's devices back, and then zpool clear"},
	{"must be run as root", errDenied, "run it as root, or let the user open /dev/zfs"}, // libzfs_error_init
	{"ermission denied", errDenied, ""},
	{"modules are not loaded", errNoZFS, "modprobe zfs"}, // libzfs_error_init
}

const hintSpace = "make room in the pool, raise the quota of the dataset and those above it, or delete old backups"

// permissions are what a user who is not root needs for a subcommand (zfs-allow(8)).
var permissions = map[string]string{
	"snapshot": "snapshot,mount", "set": "userprop", "hold": "hold", "release": "release",
	"destroy": "destroy,mount", "clone": "clone,create,mount",
}

// failure is what zfs said.
type failure struct {
	kind error
	said string
	err  error
}

func (f *failure) Error() string   { return f.said }
func (f *failure) Unwrap() []error { return []error{f.kind, f.err} }

// typed gives the failure of a program its meaning and its remedy.
func typed(err error) error {
	var failed *command.Error
	if !errors.As(err, &failed) || failed.Stderr == "" {
		return err
	}
	subcommand := ""
	if len(failed.Args) > 1 {
		subcommand = failed.Args[1]
	}
	said := "zfs " + subcommand + ": " + withoutUsage(failed.Stderr)
	for _, phrase := range phrases {
		if !strings.Contains(failed.Stderr, phrase.text) {
			continue
		}
		typed := &fault.Error{Kind: fault.Storage, Hint: phrase.hint, Err: &failure{phrase.err, said, err}}
		if phrase.err == errInUse {
			typed.Kind = fault.Busy
		}
		if needed := permissions[subcommand]; phrase.err == errDenied && typed.Hint == "" && needed != "" {
			typed.Hint = "run it as root, or as root give the user the permission: zfs allow -u USER " + needed + " DATASET"
		}
		return typed
	}
	return &fault.Error{Kind: fault.Storage, Err: &failure{errors.New("zfs failed"), said, err}}
}

// withoutUsage is what zfs said, on one line, without the help that it may add.
func withoutUsage(said string) string {
	said, _, _ = strings.Cut(said, "\nusage:")
	return strings.Join(strings.Split(strings.TrimSpace(said), "\n"), "; ")
}
