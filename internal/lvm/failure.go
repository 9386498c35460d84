package lvm

import (
	"errors"
	"strings"

	"pgsnap/internal/command"
	"pgsnap/internal/fault"
)

// What lvm2 says that something is done about. Its programs end with 5 for every
// failure (ECMD_FAILED in lib/commands/errors.h), so only the text tells.
var (
	errNotFound = errors.New("it does not exist")
	errExists   = errors.New("there is one of that name already")
	errInUse    = errors.New("it is in use")
	errNoSpace  = errors.New("the volume group is full")
	errPoolFull = errors.New("the thin pool is full")
)

// phrases are parts of lvm2's messages, in the C locale, and what they mean. The
// first that fits counts.
var phrases = []struct {
	text string
	err  error
	hint string
}{
	{"Failed to find logical volume", errNotFound, ""},  // tools/toollib.c
	{"not found", errNotFound, ""},                      // "Volume group %s not found"
	{"already exists in volume group", errExists, ""},   // lib/metadata/lv_manip.c
	{"contains a filesystem in use", errInUse, hintUse}, // lv_check_not_in_use
	{"is used by another device", errInUse, hintUse},
	{" in use", errInUse, hintUse},
	{"nsufficient free space", errNoSpace, hintSpace}, // lib/metadata/lv_manip.c
	{"nsufficient suitable", errNoSpace, hintSpace},   // "Insufficient suitable allocatable extents"
	{"no free extents", errNoSpace, hintSpace},
	{"reached threshold", errPoolFull, hintPool}, // tools/lvcreate.c, thin_manip.c
	{"is out of data space", errPoolFull, hintPool},
	{"pool is over", errPoolFull, hintPool},
}

const (
	hintUse   = "unmount it, or end what has it open"
	hintSpace = "make room in the volume group (vgextend, or lvremove what is not needed), set a smaller size in [storage.lvm], or delete old backups"
	hintPool  = "extend the thin pool (lvextend -L+SIZE GROUP/POOL, lvextend --poolmetadatasize +SIZE GROUP/POOL), or delete old backups"
)

// failure is what a program of lvm2 said, without its warnings.
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
	said := withoutWarnings(failed)
	for _, phrase := range phrases {
		if !strings.Contains(said, phrase.text) {
			continue
		}
		f := &failure{phrase.err, said, err}
		if phrase.err == errInUse {
			return &fault.Error{Kind: fault.Busy, Hint: phrase.hint, Err: f}
		}
		return &fault.Error{Kind: fault.Storage, Hint: phrase.hint, Err: f}
	}
	return &fault.Error{Kind: fault.Storage, Err: &failure{errors.New("lvm2 failed"), said, err}}
}

func withoutWarnings(failed *command.Error) string {
	var lines []string
	for line := range strings.Lines(failed.Stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "WARNING:") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		lines = []string{failed.Stderr}
	}
	return failed.Args[0] + ": " + strings.Join(lines, "; ")
}
