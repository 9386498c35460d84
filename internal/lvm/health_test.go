package lvm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// fill writes a file of that many MiB until it fails, and tells how far it came.
func fillFile(path string, mebibytes int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for index := range block {
		block[index] = byte(index * 7)
	}
	for range mebibytes {
		if _, err := file.Write(block); err != nil {
			return err
		}
	}
	return file.Sync()
}

// TestLimits refuses a backup for which there is no room.
func TestLimits(t *testing.T) {
	needLab(t)
	t.Run("thin", func(t *testing.T) {
		g := newGroup(t, "vg", "pool", "ext4")
		root := g.lab.Path("root")
		g.volume("lv", "700M", root)
		pgtest.Check(t, fillFile(filepath.Join(root, "file"), 200))
		refused(t, Driver{MaxDataPercent: 2}, root, "data of thin pool vg/pool", "limit is 2%", "lvextend -L+SIZE vg/pool", "max_data_percent")
		refused(t, Driver{MaxMetadataPercent: 0.01}, root, "metadata of thin pool vg/pool", "--poolmetadatasize", "max_metadata_percent")
		resolveOne(t, Driver{}, root)
	})
	t.Run("classic", func(t *testing.T) {
		g := newGroup(t, "vg", "", "ext4")
		root := g.lab.Path("root")
		g.volume("lv", "700M", root)
		program(t, "lvcreate", "--yes", "--extents", "100%FREE", "--wipesignatures", "n", "--name", "hog", "vg")
		program(t, "lvreduce", "--yes", "--size", "-100M", "vg/hog")
		refused(t, Driver{}, root, "volume group vg has 0.10 GiB free", "need 0.14 GiB", "vgextend")
		refused(t, Driver{Size: "101M"}, root, "volume group vg")
		resolveOne(t, Driver{Size: "100M"}, root)
		volume := resolveOne(t, Driver{Size: "50%FREE"}, root)
		// As if the room had gone since: lvcreate itself says so.
		_, err := Driver{Size: "200M"}.Snapshot(t.Context(), testName, []snap.Volume{volume}, nil)
		if !errors.Is(err, errNoSpace) || fault.KindOf(err) != fault.Storage || !strings.Contains(fault.HintOf(err), "vgextend") {
			t.Errorf("%v (%s)", err, fault.HintOf(err))
		}
		t.Log(err)
		if left := g.inventory(t); len(left) != 1 { // the hog
			t.Errorf("left: %q", left)
		}
	})
}

// TestMetadataFull: LVM itself refuses a snapshot where the pool's metadata are
// nearly full.
func TestMetadataFull(t *testing.T) {
	needLab(t)
	g := newGroup(t, "vg", "", "ext4")
	program(t, "lvcreate", "--yes", "--size", "2G", "--poolmetadatasize", "2M", "--chunksize", "64k", "--thinpool", "pool", "vg")
	g.pool = "pool"
	root := g.lab.Path("root")
	g.volume("lv", "1G", root)
	volume := resolveOne(t, Driver{}, root)
	file := filepath.Join(root, "file")
	pgtest.Check(t, fillFile(file, 800))
	var names []string
	t.Cleanup(func() {
		for _, name := range names {
			pgtest.Check(t, Driver{}.Delete(g.ctx(), volume, name))
		}
	})
	for round := range 40 {
		names = append(names, fmt.Sprintf("%s-%d", testName, round))
		_, refused := Driver{}.Resolve(t.Context(), []snap.Path{{Path: root}})
		_, err := Driver{}.Snapshot(t.Context(), names[round], []snap.Volume{volume}, nil)
		if err != nil || refused != nil {
			t.Logf("after %d snapshots: %v; lvcreate itself: %v", round, refused, err)
			if refused == nil || !strings.Contains(refused.Error(), "metadata of thin pool vg/pool") {
				t.Errorf("it was not foreseen: %v", refused)
			}
			if !errors.Is(err, errPoolFull) {
				t.Errorf("it is not said to be the pool: %v", err)
			}
			return
		}
		pgtest.Check(t, scatter(file)) // after a snapshot, each takes a page of mappings
	}
	t.Error("the metadata did not fill up")
}

// scatter overwrites a little of a file everywhere.
func scatter(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	for offset := int64(0); err == nil && offset < info.Size(); offset += 4 << 20 {
		_, err = file.WriteAt(make([]byte, 4096), offset)
	}
	return errors.Join(err, file.Sync())
}

// TestPoolFills: the pool runs out of space between the cut and the commit.
func TestPoolFills(t *testing.T) {
	needLab(t)
	d := Driver{}
	g := newGroup(t, "vg", "", "ext4")
	program(t, "lvcreate", "--yes", "--size", "200M", "--errorwhenfull", "y", "--thinpool", "pool", "vg")
	g.pool = "pool"
	root := g.lab.Path("root")
	g.volume("lv", "600M", root)
	volumes := []snap.Volume{resolveOne(t, d, root)}
	set, err := d.Snapshot(t.Context(), testName, volumes, nil)
	pgtest.Check(t, err)
	_ = fillFile(filepath.Join(root, "file"), 400)
	pgtest.Eventually(t, 10*time.Second, func() error {
		if err = d.Commit(t.Context(), volumes, set, nil); err == nil {
			return errors.New("it was committed")
		}
		return nil
	})
	if !errors.Is(err, errPoolFull) || fault.KindOf(err) != fault.Storage || !strings.Contains(fault.HintOf(err), "extend the thin pool") {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
	t.Log(err)
	refused(t, d, root, "thin pool vg/pool")
	pgtest.Check(t, d.Delete(t.Context(), volumes[0], testName))
	if left := g.inventory(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestOverflow: a classic snapshot that has no room for what is overwritten is
// lost, and says so.
func TestOverflow(t *testing.T) {
	needLab(t)
	g := newGroup(t, "vg", "", "ext4")
	s := newSite(t, "18", g)
	overwrite := func() {
		t.Helper()
		pgtest.Check(t, fillFile(filepath.Join(s.roots[2], "file"), 60))
	}
	pgtest.Check(t, fillFile(filepath.Join(s.roots[2], "file"), 60))

	t.Run("during the backup", func(t *testing.T) {
		d := Driver{Size: "12M"}
		volumes := []snap.Volume{resolveOne(t, d, s.roots[2])}
		set, err := d.Snapshot(t.Context(), testName, volumes, nil)
		pgtest.Check(t, err)
		overwrite()
		err = d.Commit(t.Context(), volumes, set, nil)
		if err == nil || !strings.Contains(err.Error(), "overflowed") || fault.KindOf(err) != fault.Storage {
			t.Errorf("%v", err)
		}
		t.Log(err)
		pgtest.Check(t, d.Delete(t.Context(), volumes[0], testName))
	})
	t.Run("after it", func(t *testing.T) {
		tool := newTool(t, g.lab.Path("catalog"), s.cluster.DSN(), `size = "40M"`)
		backup := tool.take()
		if status := tool.status(backup.ID); status != snap.Complete {
			t.Errorf("the backup is %s", status)
		}
		overwrite()
		if status := tool.status(backup.ID); status != snap.Lost {
			t.Errorf("the backup is %s", status)
		}
		tool.fails(4, []string{"lost", "overflowed"}, "restore", backup.ID, "--to", g.lab.Path("copy"))
		if exists(g.lab.Path("copy")) {
			t.Error("a copy was left behind")
		}
		tool.must(nil, "delete", "--lost", backup.ID)
		if left := g.inventory(t); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// TestThirdFails: two groups have room, the third has not, and nothing is left.
func TestThirdFails(t *testing.T) {
	disks := needLab(t)
	full := newGroup(t, "crowded", "", "ext4", disks[1])
	g := newGroup(t, "vg", "pool", "xfs", disks[0])
	classic := &group{t: t, lab: g.lab, name: g.name, fsType: "ext4", volumes: g.volumes}
	roots := []string{g.lab.Path("one"), g.lab.Path("two"), g.lab.Path("three")}
	g.volume("thin", "400M", roots[0])
	classic.volume("classic", "400M", roots[1])
	full.volume("lv", "400M", roots[2])
	var paths []snap.Path
	for index, root := range roots {
		paths = append(paths, snap.Path{Role: snap.Tablespace, Path: root, OID: uint32(index)})
	}
	for _, d := range []Driver{{}, {Instant: true, Holder: holder(t)}} {
		volumes, err := d.Resolve(t.Context(), paths)
		pgtest.Check(t, err)
		program(t, "lvcreate", "--yes", "--extents", "100%FREE", "--wipesignatures", "n", "--name", "hog", "crowded")
		set, err := d.Snapshot(t.Context(), testName, volumes, nil)
		if !errors.Is(err, errNoSpace) || len(set.Snapshots) > 0 {
			t.Errorf("%+v, %v", set, err)
		}
		if left := append(g.inventory(t), full.inventory(t)...); len(left) != 1 { // the hog
			t.Errorf("left: %q", left)
		}
		write(t, filepath.Join(roots[0], "file"), "it goes on")
		write(t, filepath.Join(roots[2], "file"), "it goes on")
		program(t, "lvremove", "--yes", "crowded/hog")
	}
}
