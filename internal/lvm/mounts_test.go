package lvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

const testName = "pgsnap-20260102-030405-0a1b"

func write(t *testing.T, path, text string) {
	t.Helper()
	pgtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	pgtest.Check(t, os.WriteFile(path, []byte(text), 0o600))
}

// cloned mounts a clone of a snapshot, and releases it at the end of the test.
func cloned(t *testing.T, d Driver, g *group, snapshot snap.Snapshot) string {
	t.Helper()
	g.count++
	target := g.lab.Path("clone", string(rune('a'+g.count)))
	pgtest.Check(t, os.MkdirAll(filepath.Dir(target), 0o755))
	clone, err := d.Clone(t.Context(), snapshot, "copy-x", target)
	pgtest.Check(t, err)
	t.Cleanup(func() {
		_ = mount.Unmount(g.ctx(), target)
		pgtest.Check(t, d.Release(g.ctx(), clone))
	})
	if clone.Mount != nil {
		pgtest.Check(t, os.Mkdir(target, 0o700))
		pgtest.Check(t, mount.Mount(t.Context(), clone.Mount.Source, target, clone.Mount.FSType, clone.Mount.Options))
	}
	return target
}

func resolveOne(t *testing.T, d Driver, paths ...string) snap.Volume {
	t.Helper()
	var asked []snap.Path
	for index, path := range paths {
		asked = append(asked, snap.Path{Role: snap.Tablespace, Path: path, OID: uint32(index)})
	}
	volumes, err := d.Resolve(t.Context(), asked)
	pgtest.Check(t, err)
	if len(volumes) != 1 || len(volumes[0].Paths) != len(paths) {
		t.Fatalf("%q are on volumes %+v", paths, volumes)
	}
	return volumes[0]
}

// TestMounts finds a volume through every kind of mount, and its paths in a clone.
func TestMounts(t *testing.T) {
	needLab(t)
	d := Driver{}
	g := newGroup(t, "a--b.c+d_e-", "pool-", "ext4")
	whole, again, part, only := g.lab.Path("whole"), g.lab.Path("again"), g.lab.Path("part"), g.lab.Path("only")
	g.volume("x-y--z+1.2_3", "512M", whole, "noatime", "nodev", "data=journal")
	write(t, filepath.Join(whole, "sub", "deep", "file"), "found")
	g.mount("x-y--z+1.2_3", again)
	bind := func(from, to string) {
		t.Helper()
		pgtest.Check(t, os.MkdirAll(to, 0o755))
		program(t, "mount", "--bind", from, to)
		g.volumes[to] = "x-y--z+1.2_3"
	}
	check := func(t *testing.T, volume snap.Volume, paths ...string) {
		t.Helper()
		set, err := d.Snapshot(t.Context(), testName, []snap.Volume{volume}, nil)
		pgtest.Check(t, err)
		t.Cleanup(func() { pgtest.Check(t, d.Delete(g.ctx(), volume, testName)) })
		clone := cloned(t, d, g, set.Snapshots[0])
		for _, path := range paths {
			relative, err := volume.Relative(path)
			pgtest.Check(t, err)
			if text, err := os.ReadFile(filepath.Join(clone, relative, "file")); err != nil || string(text) != "found" {
				t.Errorf("%s of %+v: %q, %v", path, volume, text, err)
			}
		}
		table, err := mount.Read()
		pgtest.Check(t, err)
		on, err := table.Of(clone)
		pgtest.Check(t, err)
		for _, option := range []string{"noatime", "nodev", "data=journal"} {
			if !strings.Contains(on.Options+","+on.VFSOptions, option) {
				t.Errorf("the clone is mounted with %s,%s, not with %s", on.Options, on.VFSOptions, option)
			}
		}
	}
	t.Run("twice", func(t *testing.T) {
		check(t, resolveOne(t, d, filepath.Join(whole, "sub", "deep"), filepath.Join(again, "sub", "deep")),
			filepath.Join(whole, "sub", "deep"), filepath.Join(again, "sub", "deep"))
	})
	t.Run("part", func(t *testing.T) {
		bind(filepath.Join(whole, "sub"), part)
		check(t, resolveOne(t, d, filepath.Join(part, "deep"), filepath.Join(whole, "sub", "deep")), filepath.Join(part, "deep"), filepath.Join(whole, "sub", "deep"))
	})
	t.Run("only a part", func(t *testing.T) {
		bind(filepath.Join(whole, "sub", "deep"), only)
		for _, root := range []string{whole, again, part} {
			program(t, "umount", "--", root)
			delete(g.volumes, root)
		}
		check(t, resolveOne(t, d, only), only)
	})
}

// refused makes sure that a path can't be snapshotted, and why.
func refused(t *testing.T, d Driver, path string, says ...string) {
	t.Helper()
	volumes, err := d.Resolve(t.Context(), []snap.Path{{Role: snap.DataDirectory, Path: path}})
	if err == nil {
		t.Fatalf("%s is on %+v", path, volumes)
	}
	if fault.KindOf(err) != fault.Storage || fault.HintOf(err) == "" {
		t.Errorf("it has the kind %v and the hint %q: %v", fault.KindOf(err), fault.HintOf(err), err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error()+fault.HintOf(err), text) {
			t.Errorf("it does not say %q: %v (%s)", text, err, fault.HintOf(err))
		}
	}
	t.Logf("%v\n  hint: %s", err, fault.HintOf(err))
}

// TestRefused has what lies on a volume, and can't be snapshotted with it.
func TestRefused(t *testing.T) {
	needLab(t)
	g := newGroup(t, "vg", "", "xfs")
	program(t, "lvcreate", "--yes", "--size", "400M", "--name", "below", "vg")
	program(t, "lvcreate", "--yes", "--size", "400M", "--name", "log", "vg")
	root := g.lab.Path("root")
	pgtest.Check(t, os.Mkdir(root, 0o755))
	above := func(t *testing.T, uuid string) {
		size := strings.TrimSpace(program(t, "blockdev", "--getsz", "/dev/vg/below"))
		program(t, "dmsetup", "create", "above", "--uuid", uuid, "--table", "0 "+size+" linear /dev/vg/below 0")
		t.Cleanup(func() { program(t, "dmsetup", "remove", "above") })
		program(t, "mkfs.xfs", "-q", "-f", "/dev/mapper/above")
		pgtest.Check(t, mount.Mount(t.Context(), "/dev/mapper/above", root, "xfs", nil))
		t.Cleanup(func() { program(t, "umount", root) })
	}
	t.Run("encrypted", func(t *testing.T) {
		above(t, "CRYPT-LUKS2-0123-above")
		refused(t, Driver{}, root, "vg/below", "encrypts", "below LVM")
	})
	t.Run("mapped", func(t *testing.T) {
		above(t, "mine")
		refused(t, Driver{}, root, "vg/below", "on top of")
	})
	t.Run("log elsewhere", func(t *testing.T) {
		program(t, "mkfs.xfs", "-q", "-f", "-l", "logdev=/dev/vg/log,size=64m", "/dev/vg/below")
		pgtest.Check(t, mount.Mount(t.Context(), "/dev/vg/below", root, "xfs", []string{"logdev=/dev/vg/log"}))
		defer program(t, "umount", root)
		refused(t, Driver{}, root, "logdev=")
	})
	t.Run("journal elsewhere", func(t *testing.T) {
		program(t, "mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", "/dev/vg/log")
		program(t, "mke2fs", "-q", "-F", "-b", "4096", "-t", "ext4", "-J", "device=/dev/vg/log", "/dev/vg/below")
		pgtest.Check(t, mount.Mount(t.Context(), "/dev/vg/below", root, "ext4", nil))
		defer program(t, "umount", root)
		refused(t, Driver{}, root, "external journal")
	})
	t.Run("a snapshot", func(t *testing.T) {
		program(t, "mke2fs", "-q", "-F", "-t", "ext4", "/dev/vg/below")
		program(t, "lvcreate", "--yes", "--snapshot", "--size", "100M", "--name", "snap", "vg/below")
		pgtest.Check(t, mount.Mount(t.Context(), "/dev/vg/snap", root, "ext4", nil))
		defer program(t, "umount", root)
		refused(t, Driver{}, root, "vg/snap is itself a snapshot")
	})
}

// TestRAID takes a volume that is mirrored, which has parts of its own.
func TestRAID(t *testing.T) {
	d := Driver{}
	g := newGroup(t, "vg", "", "ext4", needLab(t)...)
	root := g.lab.Path("root")
	program(t, "lvcreate", "--yes", "--type", "raid1", "--mirrors", "1", "--nosync", "--size", "200M", "--name", "mirrored", "vg")
	program(t, "mkfs.ext4", "-q", "/dev/vg/mirrored")
	g.mount("mirrored", root)
	write(t, filepath.Join(root, "file"), "found")
	volume := resolveOne(t, d, root)
	set, err := d.Snapshot(t.Context(), testName, []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	pgtest.Check(t, d.Commit(t.Context(), []snap.Volume{volume}, set, snap.Metadata{"a": "b"}))
	if _, err := os.Stat(filepath.Join(cloned(t, d, g, set.Snapshots[0]), "file")); err != nil {
		t.Error(err)
	}
	pgtest.Check(t, d.Delete(t.Context(), volume, testName))
}

// TestRenamedGroup finds snapshots in a group that has another name now.
func TestRenamedGroup(t *testing.T) {
	d := Driver{}
	g := newGroup(t, "before", "pool", "ext4")
	root := g.lab.Path("root")
	g.volume("lv", "200M", root)
	write(t, filepath.Join(root, "file"), "found")
	volume := resolveOne(t, d, root)
	set, err := d.Snapshot(t.Context(), testName, []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	program(t, "vgrename", "before", "after")
	g.name = "after"
	found, err := d.List(t.Context(), []snap.Volume{volume})
	pgtest.Check(t, err)
	if len(found) != 1 || found[0] != set.Snapshots[0] {
		t.Fatalf("%+v is listed as %+v", set.Snapshots, found)
	}
	t.Run("clone", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join(cloned(t, d, g, found[0]), "file")); err != nil {
			t.Error(err)
		}
	})
	pgtest.Check(t, d.Delete(t.Context(), volume, testName))
	if left := g.inventory(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
