package snap

import (
	"context"
	"slices"
)

// MarkLost changes the status of complete backups of which a snapshot is not
// there any more. A driver that can't be asked leaves its backups as they are,
// and its error is returned with the others'.
func MarkLost(ctx context.Context, backups []*Backup, drivers []Driver) []error {
	var failures []error
	for _, driver := range drivers {
		name := driver.Info().Name
		volumes := volumesOf(backups, name)
		if len(volumes) == 0 {
			continue
		}
		present, err := driver.List(ctx, volumes)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, backup := range backups {
			for _, snapshot := range backup.Snapshots {
				there := slices.ContainsFunc(present, func(s Snapshot) bool { return s.ID == snapshot.ID && s.Complete })
				if snapshot.Driver == name && backup.Status == Complete && !there {
					backup.Status = Lost
				}
			}
		}
	}
	return failures
}

// volumesOf are the different volumes of one driver that complete backups are of.
func volumesOf(backups []*Backup, driver string) []Volume {
	var volumes []Volume
	for _, backup := range backups {
		for _, volume := range backup.Volumes {
			same := func(v Volume) bool { return v.ID == volume.ID && v.Place == volume.Place }
			if backup.Status == Complete && volume.Driver == driver && !slices.ContainsFunc(volumes, same) {
				volumes = append(volumes, volume)
			}
		}
	}
	return volumes
}
