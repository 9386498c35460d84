package drivertest

import (
	"os"
	"path/filepath"
	"slices"

	"pgsnap/internal/snap"
)

// resolve resolves paths and holds the driver to what it says of the volumes.
func (f *fixture) resolve(paths ...snap.Path) []snap.Volume {
	f.t.Helper()
	before := f.Inventory(f.t)
	volumes, err := f.Driver.Resolve(f.t.Context(), paths)
	f.must(err)
	f.unchanged("after Resolve", before)
	var claimed []snap.Path
	for index, volume := range volumes {
		if volume.Driver != f.Driver.Info().Name || volume.ID == "" {
			f.t.Errorf("volume %+v has no ID or another driver", volume)
		}
		if !filepath.IsAbs(volume.Root) || filepath.Clean(volume.Root) != volume.Root {
			f.t.Errorf("volume %s: its root %q is not absolute and clean", volume.ID, volume.Root)
		}
		if slices.ContainsFunc(volumes[:index], func(v snap.Volume) bool { return v.ID == volume.ID }) {
			f.t.Errorf("volume %s is there twice", volume.ID)
		}
		if len(volume.Paths) == 0 {
			f.t.Errorf("volume %s holds no path", volume.ID)
		}
		for _, path := range volume.Paths {
			if !slices.Contains(paths, path) {
				f.t.Errorf("volume %s has a path that nobody asked for: %+v", volume.ID, path)
			}
			if slices.Contains(claimed, path) {
				f.t.Errorf("%s is in two volumes", path.Path)
			}
			if _, err := volume.Relative(path.Path); err != nil {
				f.t.Errorf("volume %s: %v", volume.ID, err)
			}
		}
		claimed = append(claimed, volume.Paths...)
	}
	return stored(f.t, volumes)
}

func resolveRoot(f *fixture) {
	root := f.newVolume()
	volumes := f.resolve(pathAt(root, 0))
	if len(volumes) != 1 || volumes[0].Root != root {
		f.t.Errorf("%s is in volumes %+v", root, volumes)
	}
	again := f.resolve(pathAt(root, 0))
	if len(again) != 1 || again[0].ID != volumes[0].ID || again[0].Place != volumes[0].Place {
		f.t.Errorf("the second time it is in volumes %+v", again)
	}
}

func resolveDeep(f *fixture) {
	deep := filepath.Join(f.newVolume(), "a", "b c", "data")
	f.must(os.MkdirAll(deep, 0o700))
	volumes := f.resolve(pathAt(deep, 0))
	if len(volumes) != 1 {
		f.t.Errorf("%s is in volumes %+v", deep, volumes)
	}
}

func resolveTwoPaths(f *fixture) {
	root := f.newVolume()
	deep := filepath.Join(root, "deep", "tablespace")
	f.must(os.MkdirAll(deep, 0o700))
	for _, paths := range [][]snap.Path{{pathAt(root, 0), pathAt(deep, 1)}, {pathAt(deep, 0), pathAt(root, 1)}} {
		volumes := f.resolve(paths...)
		if len(volumes) != 1 || len(volumes[0].Paths) != 2 || volumes[0].Root != root {
			f.t.Errorf("%v are in volumes %+v", paths, volumes)
		}
	}
}

func resolveTwoVolumes(f *fixture) {
	// The second name begins with the first: they are no path and one below it.
	first, second := f.NewVolume(f.t, "data"), f.NewVolume(f.t, "data2")
	volumes := f.volumesAt(pathAt(first, 0), pathAt(second, 1))
	if volumes[0].Root != first || volumes[1].Root != second {
		f.t.Errorf("%s and %s are in volumes %+v", first, second, volumes)
	}
}

func resolveElsewhere(f *fixture) {
	if f.Elsewhere == "" {
		f.t.Skip("the driver claims every path")
	}
	if volumes := f.resolve(pathAt(f.Elsewhere, 0)); len(volumes) > 0 {
		f.t.Errorf("%s is claimed: %+v", f.Elsewhere, volumes)
	}
	root := f.newVolume()
	volumes := f.resolve(pathAt(f.Elsewhere, 0), pathAt(root, 1))
	if len(volumes) != 1 || len(volumes[0].Paths) != 1 || volumes[0].Root != root {
		f.t.Errorf("of %s and %s, these are claimed: %+v", f.Elsewhere, root, volumes)
	}
}

func resolveAbsent(f *fixture) {
	root := f.newVolume()
	absent := filepath.Join(root, "absent")
	volumes, err := f.Driver.Resolve(f.t.Context(), []snap.Path{pathAt(root, 0), pathAt(absent, 1)})
	if err == nil {
		f.t.Fatalf("%s does not exist and is in volumes %+v", absent, volumes)
	}
	f.namesAny(err, absent)
}

func resolveNothing(f *fixture) {
	if volumes := f.resolve(); len(volumes) > 0 {
		f.t.Errorf("nothing is in volumes %+v", volumes)
	}
}
