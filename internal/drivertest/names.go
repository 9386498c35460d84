package drivertest

import (
	"path/filepath"
	"strings"
	"testing"
)

// odd are names of directories that have broken somebody's program.
var odd = map[string]string{
	"Space":     " a  b ",
	"Backslash": `a\040\b`,
	"Newline":   "a\nb\n",
	"Quotes":    `a"b'c` + "`d",
	"Comma":     "a,b=c:d;e",
	"Percent":   "a%41%2Fb%s",
	"Dash":      "-r",
	"Shell":     "$(a) *?[b] & | > #!~",
	"Tab":       "a\tb",
	"Dots":      "..a",
	"Unicode":   "ünï \u202e código 数据",
	"Long":      strings.Repeat("long", 63),
	"LongOdd":   strings.Repeat("ä", 127),
}

// oddNames takes a volume of each name through its whole life.
func oddNames(f *fixture) {
	for what, name := range odd {
		f.t.Run(what, func(t *testing.T) {
			f := begin(t, f.Storage)
			defer f.end()
			f.life(name)
		})
	}
}

func (f *fixture) life(name string) {
	root := f.NewVolume(f.t, name)
	if filepath.Base(root) != name {
		f.t.Fatalf("the volume %q is at %q", name, root)
	}
	fill(f.t, root)
	want := contentOf(f.t, root)
	volumes := f.volumesAt(pathAt(root, 0))
	snapshotName := f.snapshotName()
	set := f.snapshot(snapshotName, volumes...)
	alter(f.t, root)
	f.commit(volumes, set, cutMetadata())
	f.carries(volumes[0], snapshotName, cutMetadata())
	for _, dir := range []string{f.Near, f.Far} {
		if dir == "" {
			continue
		}
		clone := f.clone(f.listed(volumes[0], snapshotName), copyName(), filepath.Join(dir, name))
		if diff := want.diff(contentOf(f.t, clone.Target)); diff != "" {
			f.t.Error(diff)
		}
		f.release(clone)
	}
	f.delete(volumes[0], snapshotName)
	f.unchanged("after its life", f.before)
}

// alikeNames are those that a driver may take for one another.
func alikeNames(f *fixture) {
	long := strings.Repeat("ä", 120)
	names := []string{"data", "data.json", "data%2Ejson", "data.json.json", long + "a", long + "b", "data_", "da-ta", "da--ta"}
	for index, name := range names {
		root := f.NewVolume(f.t, name)
		fill(f.t, root)
		f.volumes = append(f.volumes, f.resolve(pathAt(root, index))...)
	}
	// All in one set: the storage has them side by side.
	name := f.snapshotName()
	set := f.snapshot(name, f.volumes...)
	f.commit(f.volumes, set, cutMetadata())
	for index, volume := range f.volumes {
		f.same(f.listed(volume, name), set.Snapshots[index])
		for _, other := range set.Snapshots[:index] {
			if other.ID == set.Snapshots[index].ID {
				f.t.Errorf("%s and %s both have the snapshot %s", other.VolumeID, volume.ID, other.ID)
			}
		}
	}
	for index, volume := range f.volumes {
		f.delete(volume, name)
		for _, other := range f.volumes[index+1:] {
			if !f.listed(other, name).Complete {
				f.t.Errorf("with the snapshot of %s, that of %s went", volume.ID, other.ID)
			}
		}
	}
}
