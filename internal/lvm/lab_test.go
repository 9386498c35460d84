package lvm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgsnap/internal/drivertest"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == holdArgument {
		os.Exit(Hold(os.Args[2:]))
	}
	os.Exit(m.Run())
}

const holdArgument = "lvm-hold"

// needLab skips a test outside of the lab, and returns the lab's disks.
func needLab(t *testing.T) []string {
	t.Helper()
	disks := strings.Fields(os.Getenv("PGSNAP_LAB_DISKS"))
	if os.Getenv("PGSNAP_LAB") != "1" || len(disks) < 2 {
		t.Skip("LVM is real in the lab only: lab/run go test ./internal/lvm")
	}
	return disks
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
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", args, err, stderr.String())
	}
	return string(out), err
}

// group is a volume group of a test, and what the test has in it.
type group struct {
	t       *testing.T
	lab     *pgtest.Lab
	name    string
	pool    string // empty: volumes are classic
	fsType  string
	volumes map[string]string // volume by mount point
	keep    bool              // the group outlasts the test
	count   int
}

// newGroup makes a group of that name on disks of the lab, which goes with the
// test. With a pool, volumes in it are thin.
func newGroup(t *testing.T, name, pool, fsType string, disks ...string) *group {
	t.Helper()
	if len(disks) == 0 {
		disks = needLab(t)[:1]
	}
	g := &group{t: t, lab: pgtest.New(t), name: name, pool: pool, fsType: fsType, volumes: map[string]string{}}
	program(t, append([]string{"vgcreate", "--yes", name}, disks...)...)
	// Before that are stopped the servers which are started later.
	g.lab.Defer("remove group "+name, func() error {
		for root := range g.volumes {
			_, _ = tryProgram("umount", "--", root)
		}
		if g.keep {
			return nil
		}
		_, err := tryProgram("vgremove", "--yes", "--force", g.name)
		for _, disk := range disks {
			_, _ = tryProgram("pvremove", "--yes", "--force", "--force", disk)
		}
		return err
	})
	if pool != "" {
		program(t, "lvcreate", "--yes", "--size", "3G", "--poolmetadatasize", "64M", "--thinpool", pool, name)
	}
	return g
}

// volume makes a volume with a file system, mounted at a new directory.
func (g *group) volume(lv, size, root string, options ...string) {
	g.t.Helper()
	if g.pool != "" {
		program(g.t, "lvcreate", "--yes", "--virtualsize", size, "--thinpool", g.pool, "--name", lv, g.name)
	} else {
		program(g.t, "lvcreate", "--yes", "--size", size, "--name", lv, g.name)
	}
	program(g.t, "mkfs", "-t", g.fsType, "-q", "/dev/"+g.name+"/"+lv)
	g.mount(lv, root, options...)
}

func (g *group) mount(lv, root string, options ...string) {
	g.t.Helper()
	pgtest.Check(g.t, os.MkdirAll(root, 0o755))
	pgtest.Check(g.t, mount.Mount(g.t.Context(), "/dev/"+g.name+"/"+lv, root, g.fsType, options))
	g.volumes[root] = lv
}

// newVolume is drivertest's.
func (g *group) newVolume(t *testing.T, name string) string {
	t.Helper()
	g.count++
	root := filepath.Join(g.lab.Dir(), "mounts", fmt.Sprint(g.count), name)
	g.volume(fmt.Sprintf("v-%d", g.count), "512M", root)
	t.Cleanup(func() { g.removeVolume(t, root) })
	return root
}

func (g *group) removeVolume(t *testing.T, root string) {
	t.Helper()
	lv, known := g.volumes[root]
	if !known {
		return
	}
	delete(g.volumes, root)
	program(t, "umount", "--", root)
	program(t, "lvremove", "--yes", g.name+"/"+lv)
}

// inventory is every volume that is not a test's own, and every mount of one.
func (g *group) inventory(t *testing.T) []string {
	t.Helper()
	rows, err := report(t.Context(), g.name)
	pgtest.Check(t, err)
	var lines []string
	for _, r := range rows {
		own := r.Name == g.pool
		for _, lv := range g.volumes {
			own = own || lv == r.Name
		}
		if !own {
			lines = append(lines, fmt.Sprintf("volume %s %s of %s, %s bytes, %s", r.id(), r.UUID, r.Origin, r.Size, r.Tags))
		}
	}
	table, err := mount.Read()
	pgtest.Check(t, err)
	for _, mounted := range table {
		if _, own := g.volumes[mounted.Mountpoint]; !own && strings.HasPrefix(mounted.Source, "/dev/mapper/"+double(g.name)+"-") {
			lines = append(lines, fmt.Sprintf("mount %s at %s", mounted.Source, mounted.Mountpoint))
		}
	}
	slices.Sort(lines)
	return lines
}

// snapshotID is GROUP/NAME of a volume's snapshot.
func snapshotID(volume snap.Volume, name string) string {
	group, lv := split(volume.ID)
	return group + "/" + snapshotName(name, group, lv)
}

// foreign makes a volume that is not pgsnap's.
func (g *group) foreign(t *testing.T, volume snap.Volume, name string) func() {
	t.Helper()
	id := snapshotID(volume, name)
	_, lv := split(id)
	program(t, "lvcreate", "--yes", "--size", "4M", "--wipesignatures", "n", "--name", lv, g.name)
	return func() { program(t, "lvremove", "--yes", id) }
}

// halfMade makes what an lvcreate leaves that died: a volume with the tags, which
// is not a snapshot yet.
func (g *group) halfMade(t *testing.T, volume snap.Volume, name string) {
	t.Helper()
	plans, err := Driver{}.plan(name, []snap.Volume{volume}, nil)
	pgtest.Check(t, err)
	_, lv := split(plans[0].id)
	args := []string{"lvcreate", "--yes", "--name", lv}
	if g.pool != "" {
		args = append(args, "--virtualsize", "512M", "--thinpool", g.pool)
	} else {
		args = append(args, "--size", "64M")
	}
	program(t, append(append(args, addTags(plans[0].tags)...), g.name)...)
}

func (g *group) metadata(t *testing.T, volume snap.Volume, name string) snap.Metadata {
	t.Helper()
	rows, err := report(t.Context(), g.name)
	pgtest.Check(t, err)
	index := slices.IndexFunc(rows, func(r row) bool { return r.id() == snapshotID(volume, name) })
	if index < 0 {
		t.Fatalf("there is no snapshot %s of %s", name, volume.ID)
	}
	return MetadataOf(rows[index].tags())
}

func (g *group) storage(driver Driver) drivertest.Storage {
	far := filepath.Join(g.lab.Dir(), "far")
	pgtest.Check(g.t, os.MkdirAll(far, 0o755))
	s := drivertest.Storage{
		Driver: driver, NewVolume: g.newVolume, Inventory: g.inventory, Foreign: g.foreign,
		HalfMade: g.halfMade, Metadata: g.metadata, Far: far, Elsewhere: far,
	}
	if g.pool != "" {
		s.RemoveVolume = g.removeVolume // a classic snapshot goes with its origin
	}
	return s
}

// holder is this test's program, which TestMain makes a holder.
func holder(t *testing.T) []string {
	t.Helper()
	program, err := os.Executable()
	pgtest.Check(t, err)
	return []string{program, holdArgument}
}

// ctx outlasts the test's own, for what is to be removed at its end.
func (g *group) ctx() context.Context { return context.WithoutCancel(g.t.Context()) }

// newGroupAttr starts a process as the leader of a group, which killGroup ends.
func newGroupAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
