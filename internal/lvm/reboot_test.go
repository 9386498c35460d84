package lvm

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// stageVariable says which half of TestReboot is to run: take, and after a reboot
// of the lab (lab/run --keep, and then --reuse DIR) restore.
const stageVariable = "PGSNAP_LAB_STAGE"

// TestReboot takes a backup of a thin and a classic volume, and restores it after a
// reboot.
func TestReboot(t *testing.T) {
	needLab(t)
	switch os.Getenv(stageVariable) {
	case "take":
		takeBeforeReboot(t)
	case "restore":
		restoreAfterReboot(t)
	default:
		t.Skip("it needs two runs of the lab: " + stageVariable + "=take lab/run --keep, then =restore with --reuse")
	}
}

func takeBeforeReboot(t *testing.T) {
	thin := newGroup(t, "re-boot", "pool", "xfs")
	thin.keep = true
	classic := &group{t: t, lab: thin.lab, name: thin.name, fsType: "ext4", volumes: thin.volumes}
	classic.volume("catalog", "400M", thin.lab.Path("catalog"))
	s := newSite(t, "18", thin, thin, classic)
	tool := newTool(t, thin.lab.Path("catalog", "pgsnap"), s.cluster.DSN(), "")
	load := pgtest.Load(t, s.cluster, pgtest.BenchOptions{Tablespace: "other"})
	time.Sleep(time.Second)
	t.Logf("%+v", tool.take().Snapshots)
	load.Kill()
	pgtest.Check(t, s.cluster.Stop(t.Context(), pgtest.Immediate))
}

func restoreAfterReboot(t *testing.T) {
	program(t, "vgchange", "--activate", "y", "re-boot")
	t.Log(program(t, "lvs", "-o", "lv_name,lv_attr,data_percent", "re-boot"))
	lab := pgtest.New(t)
	g := &group{t: t, lab: lab, name: "re-boot", pool: "pool", volumes: map[string]string{}}
	pgtest.Check(t, os.MkdirAll(lab.Path("catalog"), 0o755))
	pgtest.Check(t, mount.Mount(t.Context(), "/dev/re-boot/catalog", lab.Path("catalog"), "ext4", nil))
	g.volumes[lab.Path("catalog")] = "catalog"
	tool := newTool(t, lab.Path("catalog", "pgsnap"), "host=/nowhere", "")
	var backups []*snap.Backup
	tool.must(&backups, "list")
	if len(backups) != 1 || backups[0].Status != snap.Complete {
		t.Fatalf("%+v", backups)
	}
	tool.restore(backups[0].ID, lab.Path("copy"))
	tool.must(nil, "delete", backups[0].ID)
	for _, line := range g.inventory(t) {
		if strings.Contains(line, "pgsnap") {
			t.Errorf("left: %s", line)
		}
	}
}
