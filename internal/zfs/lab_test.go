package zfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgsnap/internal/drivertest"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// needLab skips a test outside of a lab that has ZFS.
func needLab(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/sys/module/zfs"); os.Getenv("PGSNAP_LAB") != "1" || err != nil {
		t.Skip("ZFS is real in the lab only: lab/run --zfs go test ./internal/zfs")
	}
}

// program runs a program that must succeed.
func program(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryProgram(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryProgram(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", args, err, stderr.String())
	}
	return string(out), err
}

// pool is a pool of a test, and the volumes that the test has in it.
type pool struct {
	t       *testing.T
	lab     *pgtest.Lab
	name    string
	image   string
	fsType  string            // of the volumes: zfs, or that of file systems on zvols
	volumes map[string]string // dataset by mount point
	count   int
}

// newPool makes a pool on a file, which goes with the test.
func newPool(t *testing.T, name, fsType string) *pool {
	t.Helper()
	needLab(t)
	return newPoolIn(t, pgtest.New(t), name, fsType, 4<<30)
}

func newPoolIn(t *testing.T, lab *pgtest.Lab, name, fsType string, size int64) *pool {
	t.Helper()
	p := &pool{t: t, lab: lab, name: name, fsType: fsType, image: lab.Path(name + ".img"), volumes: map[string]string{}}
	file, err := os.Create(p.image)
	pgtest.Check(t, err)
	pgtest.Check(t, file.Truncate(size))
	pgtest.Check(t, file.Close())
	program(t, "zpool", "create", "-O", "mountpoint=none", name, p.image)
	// A pool of a test that failed may be in use.
	t.Cleanup(func() {
		for root, dataset := range p.volumes {
			if p.fsType != "zfs" || dataset == "" {
				_, _ = tryProgram("umount", "--", root)
			}
		}
		if _, err := tryProgram("zpool", "destroy", "-f", name); err != nil {
			t.Error(err)
		}
	})
	return p
}

// dataset makes a dataset, mounted at a new directory.
func (p *pool) dataset(name, root string, options ...string) string {
	p.t.Helper()
	args := []string{"zfs", "create", "-o", "mountpoint=" + root}
	for _, option := range options {
		args = append(args, "-o", option)
	}
	name = p.name + "/" + name
	program(p.t, append(args, name)...)
	p.volumes[root] = name
	return name
}

// zvol makes a zvol with a file system, mounted at a new directory.
func (p *pool) zvol(name, root string) {
	p.t.Helper()
	name = p.name + "/" + name
	program(p.t, "zfs", "create", "-s", "-V", "512M", name)
	device, err := waitForZvol(p.t.Context(), name)
	pgtest.Check(p.t, err)
	program(p.t, "mkfs", "-t", p.fsType, "-q", device)
	pgtest.Check(p.t, os.MkdirAll(root, 0o755))
	pgtest.Check(p.t, mount.Mount(p.t.Context(), device, root, p.fsType, nil))
	p.volumes[root] = name
}

// newVolume is drivertest's.
func (p *pool) newVolume(t *testing.T, name string) string {
	t.Helper()
	p.t = t
	p.count++
	root := filepath.Join(p.lab.Dir(), "mounts", fmt.Sprint(p.count), name)
	pgtest.Check(t, os.MkdirAll(root, 0o755))
	if p.fsType == "zfs" {
		p.dataset(fmt.Sprintf("v %d", p.count), root)
	} else {
		p.zvol(fmt.Sprintf("v %d", p.count), root)
	}
	t.Cleanup(func() {
		dataset := p.volumes[root]
		delete(p.volumes, root)
		program(t, "umount", "--", root)
		program(t, "zfs", "destroy", dataset)
	})
	return root
}

// inventory is every dataset and snapshot that is not a test's own, with all that
// was set on it, and every mount of one.
func (p *pool) inventory(t *testing.T) []string {
	t.Helper()
	p.t = t
	table, err := mount.Read()
	pgtest.Check(t, err)
	// No other snapshot-automount than those that the tests brought about.
	var lines []string
	for _, mounted := range table {
		_, own := p.volumes[mounted.Mountpoint]
		if mounted.FSType == "zfs" && !own && poolOf(mounted.Source) == p.name && !strings.Contains(mounted.Source, "@") {
			lines = append(lines, fmt.Sprintf("mount %s at %s", mounted.Source, mounted.Mountpoint))
		}
	}
	things, err := tool{}.get(t.Context(), []string{p.name}, "-r", "-t", "all", "-s", "local,received,none", "all")
	pgtest.Check(t, err)
	for _, one := range things {
		dataset, _ := split(one.name)
		own := one.name == dataset && (one.name == p.name || slices.Contains(values(p.volumes), dataset))
		if own {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %s", one.name, one.properties["guid"].text))
		for name, v := range one.properties {
			if v.own() || name == "userrefs" {
				lines = append(lines, fmt.Sprintf("%s: %s=%s", one.name, name, v.text))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// foreign makes a snapshot that is not pgsnap's.
func (p *pool) foreign(t *testing.T, volume snap.Volume, name string) func() {
	t.Helper()
	program(t, "zfs", "snapshot", volume.ID+"@"+name)
	return func() { program(t, "zfs", "destroy", volume.ID+"@"+name) }
}

// halfMade makes a snapshot that carries the mark and no more. ZFS itself makes
// them whole or not at all.
func (p *pool) halfMade(t *testing.T, volume snap.Volume, name string) {
	t.Helper()
	program(t, "zfs", "snapshot", "-o", propSnapshot+"="+name, volume.ID+"@"+name)
}

func (p *pool) metadata(t *testing.T, volume snap.Volume, name string) snap.Metadata {
	t.Helper()
	things, err := tool{}.get(t.Context(), []string{volume.ID + "@" + name}, "-s", "local,received", "all")
	pgtest.Check(t, err)
	if len(things) == 0 {
		t.Fatalf("there is no snapshot %s of %s", name, volume.ID)
	}
	texts := map[string]string{}
	for key, v := range things[0].properties {
		texts[key] = v.text
	}
	return MetadataOf(texts)
}

func (p *pool) storage(driver Driver) drivertest.Storage {
	far := filepath.Join(p.lab.Dir(), "far")
	pgtest.Check(p.t, os.MkdirAll(far, 0o755))
	return drivertest.Storage{
		Driver: driver, NewVolume: p.newVolume, Inventory: p.inventory, Foreign: p.foreign,
		HalfMade: p.halfMade, Metadata: p.metadata, Far: far, Elsewhere: far,
	}
}
