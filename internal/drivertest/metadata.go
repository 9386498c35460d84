package drivertest

import (
	"errors"
	"strings"

	"pgsnap/internal/snap"
)

// cutMetadata is what is known when a snapshot is cut.
func cutMetadata() snap.Metadata {
	return snap.Metadata{"id": "20260102-030405-0a1b", "cluster": "main", "start-lsn": "0/3000028"}
}

// carries makes sure that a snapshot carries metadata, and nothing else.
func (f *fixture) carries(volume snap.Volume, name string, want snap.Metadata) {
	f.t.Helper()
	if f.Metadata == nil {
		return // the storage drops it
	}
	is := f.Metadata(f.t, volume, name)
	for key, value := range want {
		if is[key] != value {
			f.t.Errorf("snapshot %s of %s: %s is %d bytes, %.60q, not %d bytes, %.60q", name, volume.ID, key, len(is[key]), is[key], len(value), value)
		}
	}
	for key, value := range is {
		if _, known := want[key]; !known {
			f.t.Errorf("snapshot %s of %s: %s is %.60q, which nobody said", name, volume.ID, key, value)
		}
	}
}

// commit commits a set, which stays what it was.
func (f *fixture) commit(volumes []snap.Volume, set snap.Set, metadata snap.Metadata) {
	f.t.Helper()
	f.must(f.Driver.Commit(f.t.Context(), volumes, set, metadata))
	for index, snapshot := range set.Snapshots {
		listed := f.listed(volumes[index], snapshot.Name)
		if listed.ID != snapshot.ID || !listed.CutAt.Equal(snapshot.CutAt) || !listed.Complete {
			f.t.Errorf("before Commit %+v, after it %+v", snapshot, listed)
		}
	}
}

func with(metadata snap.Metadata, key, value string) snap.Metadata {
	metadata[key] = value
	return metadata
}

func commitAdds(f *fixture) {
	volumes := f.some(2)
	want := contentOf(f.t, volumes[0].Root)
	name := f.snapshotName()
	set := f.snapshot(name, volumes...)
	f.carries(volumes[0], name, cutMetadata())
	f.commit(volumes, set, snap.Metadata{"stop-lsn": "0/4000000"})
	for _, volume := range volumes {
		f.carries(volume, name, with(cutMetadata(), "stop-lsn", "0/4000000"))
	}
	f.holds(set.Snapshots[0], want)
}

// commitAnyBytes has the values that a backup label and a tablespace map may be:
// long, of several lines, and in the server's encoding.
func commitAnyBytes(f *fixture) {
	every := make([]byte, 256)
	for index := range every {
		every[index] = byte(index)
	}
	values := snap.Metadata{
		"long": strings.Repeat("0123456789abcde\n", 512), "bytes": string(every), "empty": "", "lines": "a\nb\t\"c\"\\ 'd', e=f; %41 $(g) @h\n",
		"latin": "caf\xe9", "number": "-1", "list": "[]",
	}
	volumes := f.some(1)
	name := f.snapshotName()
	set := f.snapshot(name, volumes...)
	f.commit(volumes, set, values)
	want := cutMetadata()
	for key, value := range values {
		want[key] = value
	}
	f.carries(volumes[0], name, want)
}

func commitTwice(f *fixture) {
	volumes := f.some(1)
	name := f.snapshotName()
	set := f.snapshot(name, volumes...)
	f.commit(volumes, set, snap.Metadata{"stop-lsn": "0/4000000", "label": "first"})
	f.commit(volumes, set, snap.Metadata{"label": "second"})
	f.carries(volumes[0], name, with(with(cutMetadata(), "stop-lsn", "0/4000000"), "label", "second"))
}

// commitAbsent commits a set of which one snapshot was deleted meanwhile.
func commitAbsent(f *fixture) {
	volumes := f.some(2)
	name := f.snapshotName()
	set := f.snapshot(name, volumes...)
	f.delete(volumes[1], name)
	err := f.Driver.Commit(f.t.Context(), volumes, set, snap.Metadata{"stop-lsn": "0/4000000"})
	if !errors.Is(err, snap.ErrNoSnapshot) {
		f.t.Errorf("the second snapshot is not there, but the error is: %v", err)
	}
	if left := f.list(volumes[1]); len(left) > 0 {
		f.t.Errorf("the second volume has snapshots %+v", left)
	}
}
