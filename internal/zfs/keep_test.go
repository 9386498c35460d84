package zfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestKept: nobody's pruning takes a snapshot away, and pgsnap takes away none that
// others need or made.
func TestKept(t *testing.T) {
	p := newPool(t, "kept", "zfs")
	root := p.lab.Path("kept")
	p.dataset("my data", root)
	volumes := resolve(t, dataAt(root))
	set := take(t, volumes, nil)
	id, name := set.Snapshots[0].ID, set.Snapshots[0].Name
	if out, err := tryProgram("zfs", "destroy", id); err == nil {
		t.Errorf("zfs destroy took the snapshot away: %s", out)
	}
	busy := func(says ...string) {
		t.Helper()
		err := Driver{}.Delete(t.Context(), volumes[0], name)
		fails(t, err, says...)
		if fault.KindOf(err) != fault.Busy {
			t.Errorf("the error is not of kind Busy: %v", err)
		}
		if out, err := tryProgram("zfs", "destroy", id); err == nil {
			t.Errorf("it is not held any more: %s", out)
		}
	}
	program(t, "zfs", "hold", "somebody's", id)
	busy("held by others", "somebody's")
	program(t, "zfs", "release", "somebody's", id)
	program(t, "zfs", "clone", "-o", "mountpoint="+p.lab.Path("theirs"), id, "kept/theirs")
	busy("kept/theirs at " + p.lab.Path("theirs"))
	program(t, "zfs", "destroy", "kept/theirs")

	// A mark that is only inherited is none.
	program(t, "zfs", "set", propSnapshot+"=other", volumes[0].ID)
	program(t, "zfs", "snapshot", volumes[0].ID+"@other")
	fails(t, Driver{}.Delete(t.Context(), volumes[0], "other"), "not pgsnap's")
	program(t, "zfs", "destroy", volumes[0].ID+"@other")
	remove(t, volumes, set)
}

// TestMoved finds snapshots again after the original was renamed and a copy of it
// was promoted in its place, and not those that were sent elsewhere.
func TestMoved(t *testing.T) {
	p := newPool(t, "moved", "zfs")
	root := p.lab.Path("moved")
	p.dataset("data", root)
	pgtest.Check(t, os.WriteFile(filepath.Join(root, "file"), []byte("kept"), 0o600))
	volumes := resolve(t, dataAt(root))
	first, second := take(t, volumes, nil), take(t, volumes, nil)
	if _, err := tryProgram("sh", "-c", "zfs send -p moved/data@"+first.Snapshots[0].Name+" | zfs receive -u moved/replica"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{
		"rename moved/data moved/broken",
		"clone -o mountpoint=none moved/broken@" + first.Snapshots[0].Name + " moved/data",
		"promote moved/data",
	} {
		program(t, append([]string{"zfs"}, strings.Fields(step)...)...)
		all, err := Driver{}.List(t.Context(), volumes)
		pgtest.Check(t, err)
		if len(all) != 2 || all[0].ID == all[1].ID || !all[0].Complete {
			t.Errorf("after zfs %s: %+v", step, all)
		}
	}
	program(t, "zfs", "promote", "moved/broken")
	program(t, "zfs", "destroy", "moved/data")
	clone, err := Driver{}.Clone(t.Context(), second.Snapshots[0], "copy", p.lab.Path("copy"))
	pgtest.Check(t, err)
	program(t, "zfs", "mount", clone.ID)
	if data, err := os.ReadFile(p.lab.Path("copy", "file")); string(data) != "kept" {
		t.Errorf("the copy holds %q, %v", data, err)
	}
	program(t, "zfs", "unmount", clone.ID)
	pgtest.Check(t, Driver{}.Release(t.Context(), clone))
	remove(t, volumes, first)
	remove(t, volumes, second)
	left := program(t, "zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-r", "moved")
	if left != "moved/replica@"+first.Snapshots[0].Name+"\n" {
		t.Errorf("left: %s", left)
	}
}

// TestClones: a clone is like its original, is where it was configured to be, and is
// not destroyed with what others made in it.
func TestClones(t *testing.T) {
	p := newPool(t, "copies", "zfs")
	root := p.lab.Path("original")
	p.dataset("data", root, "recordsize=8k", "logbias=throughput", "quota=100M", "copies=2")
	program(t, "zfs", "create", "-o", "compression=off", "-o", "readonly=on", "copies/below")
	volumes := resolve(t, dataAt(root))
	set := take(t, volumes, nil)
	for _, d := range []Driver{{}, {Clones: "copies/below"}, {Clones: "elsewhere/x"}} {
		clone, err := d.Clone(t.Context(), set.Snapshots[0], "copy", p.lab.Path("copy"))
		pgtest.Check(t, err)
		is := strings.Fields(program(t, "zfs", "get", "-Hp", "-o", "value", "recordsize,logbias,copies,quota,readonly,canmount,mountpoint", clone.ID))
		want := "8192 throughput 2 0 off noauto " + p.lab.Path("copy")
		if strings.Join(is, " ") != want {
			t.Errorf("%s has %v", clone.ID, is)
		}
		if parent := parentOf(clone.ID); d.Clones == "copies/below" && parent != d.Clones || d.Clones != "copies/below" && parent != "copies" {
			t.Errorf("with clones in %q it is %s", d.Clones, clone.ID)
		}
		program(t, "zfs", "snapshot", clone.ID+"@theirs")
		fails(t, d.Release(t.Context(), clone), clone.ID+"@theirs")
		program(t, "zfs", "destroy", clone.ID+"@theirs")
		pgtest.Check(t, d.Release(t.Context(), known(clone)))
	}
	_, err := Driver{Clones: "copies/absent"}.Clone(t.Context(), set.Snapshots[0], "copy", p.lab.Path("copy"))
	fails(t, err, "copies/absent", "does not exist")
	remove(t, volumes, set)
}

func known(clone snap.Clone) snap.Clone {
	return snap.Clone{Driver: clone.Driver, Name: clone.Name, SnapshotID: clone.SnapshotID, Target: clone.Target}
}
