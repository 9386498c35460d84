package zfs

import (
	"context"
	"os"
	"os/user"
	"slices"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// needed are the permissions to take, list and delete backups (zfs-allow(8)). To
// clone takes root, since only root may mount on Linux.
var needed = []string{"snapshot", "mount", "hold", "release", "destroy", "userprop"}

// checkAllowed makes sure, before the server is in backup mode, that a user who is
// not root has been given all that a backup takes. Where the user is not known to
// this program, ZFS itself has to say so.
func checkAllowed(ctx context.Context, volumes []snap.Volume) error {
	if os.Geteuid() == 0 {
		return nil
	}
	name, who := whoAmI()
	if name == "" {
		return nil
	}
	for _, volume := range volumes {
		out, err := tool{}.zfs(ctx, "allow", volume.ID)
		if err != nil {
			return err
		}
		allowed := permissionsOf(string(out), volume.ID, who)
		missing := slices.DeleteFunc(slices.Clone(needed), func(p string) bool { return slices.Contains(allowed, p) })
		if len(missing) > 0 {
			list := strings.Join(missing, ",")
			return fault.New(fault.Storage, "as root: zfs allow -u "+name+" "+list+" "+volume.ID+", or run pgsnap as root",
				"user %s lacks permissions on ZFS dataset %s: %s", name, volume.ID, list)
		}
	}
	return nil
}

// whoAmI is the user's name and what zfs allow may list the user as.
func whoAmI() (name string, who []string) {
	me, err := user.Current()
	if err != nil {
		return "", nil
	}
	who = []string{"everyone", "user " + me.Username}
	ids, err := me.GroupIds()
	if err != nil {
		return "", nil
	}
	for _, id := range ids {
		if group, err := user.LookupGroupId(id); err == nil {
			who = append(who, "group "+group.Name)
		}
	}
	return me.Username, who
}

// permissionsOf reads what zfs allow prints of a dataset and those above it
// (parse_fs_perm_set and print_fs_perms in cmd/zfs/zfs_main.c): the permissions of
// who, which are each of "everyone", "user NAME" or "group NAME".
func permissionsOf(out, dataset string, who []string) []string {
	var given []string
	sets := map[string][]string{}
	here, applies, inSets := false, false, false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if on, is := strings.CutPrefix(line, "---- Permissions on "); is {
			here = strings.TrimRight(on, " -") == strings.TrimRight(dataset, " -")
			continue
		}
		if section, is := strings.CutSuffix(line, ":"); is && !strings.HasPrefix(line, "\t") {
			inSets = section == "Permission sets"
			applies = section == "Local+Descendent permissions" || section == "Local permissions" && here || section == "Descendent permissions" && !here
			continue
		}
		subject, list := lastWord(strings.TrimSpace(line))
		switch {
		case inSets:
			sets[subject] = append(sets[subject], strings.Split(list, ",")...)
		case applies && slices.Contains(who, subject):
			given = append(given, strings.Split(list, ",")...)
		}
	}
	// A set may hold sets.
	for index := 0; index < len(given); index++ {
		for _, permission := range sets[given[index]] {
			if !slices.Contains(given, permission) {
				given = append(given, permission)
			}
		}
	}
	return given
}

func lastWord(line string) (before, last string) {
	at := strings.LastIndexByte(line, ' ')
	if at < 0 {
		return "", line
	}
	return line[:at], line[at+1:]
}
