package zfs

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestSuspended: a pool whose devices fail stops, and with it whoever waits for it.
// It is an error instead, before the server is in backup mode.
func TestSuspended(t *testing.T) {
	needLab(t)
	disks := strings.Fields(os.Getenv("PGSNAP_LAB_DISKS"))
	if len(disks) == 0 {
		t.Skip("needs a disk of the lab: lab/run --disks 1")
	}
	const device, sectors = "pgsnap-failing", 1 << 20
	table := func(kind string) string { return fmt.Sprintf("0 %d %s", sectors, kind) }
	works := "linear " + disks[0] + " 0"
	program(t, "dmsetup", "create", device, "--table", table(works))
	t.Cleanup(func() { program(t, "dmsetup", "remove", "--retry", device) })
	program(t, "dmsetup", "mknodes")
	become := func(kind string) {
		t.Helper()
		program(t, "dmsetup", "suspend", "--noflush", "--nolockfs", device)
		program(t, "dmsetup", "load", device, "--table", table(kind))
		program(t, "dmsetup", "resume", device)
	}
	program(t, "zpool", "create", "-O", "mountpoint=none", "failing", "/dev/mapper/"+device)
	t.Cleanup(func() { program(t, "zpool", "destroy", "-f", "failing") })
	root := pgtest.New(t).Path("failing")
	program(t, "zfs", "create", "-o", "mountpoint="+root, "failing/data")
	become("error")
	t.Cleanup(func() {
		become(works)
		program(t, "zpool", "clear", "failing")
	})
	go func() { _, _ = tryProgram("sh", "-c", "echo x >"+root+"/file; sync "+root+"/file") }()
	pgtest.Eventually(t, time.Minute, func() error {
		if health := program(t, "zpool", "list", "-H", "-o", "health", "failing"); health != "SUSPENDED\n" {
			return fmt.Errorf("the pool is %s", health)
		}
		return nil
	})
	_, err := Driver{}.Resolve(t.Context(), []snap.Path{dataAt(root)})
	fails(t, err, "failing", "SUSPENDED")
	if hint := fault.HintOf(err); !strings.Contains(hint, "zpool clear failing") {
		t.Errorf("the hint is %q", hint)
	}
	_, err = Driver{}.List(t.Context(), []snap.Volume{{ID: "failing/data", Root: root}})
	fails(t, err, "suspended")
}
