package lvm

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
)

// writable makes sure that a file system goes on.
func writable(t *testing.T, root string, within time.Duration) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fillFile(filepath.Join(root, "probe"), 1) }()
	select {
	case err := <-done:
		pgtest.Check(t, err)
	case <-time.After(within):
		t.Fatalf("%s does not go on", root)
	}
}

// TestHold has volumes go on whatever becomes of those who hold them.
func TestHold(t *testing.T) {
	needLab(t)
	g := newGroup(t, "vg", "", "xfs")
	roots := []string{g.lab.Path("one"), g.lab.Path("two")}
	g.volume("one", "400M", roots[0])
	g.volume("two", "400M", roots[1])
	d := Driver{Holder: holder(t)}
	devices := []string{"vg-one", "vg-two"}
	suspended := func() bool {
		return strings.Count(program(t, "dmsetup", "info", "--columns", "--noheadings", "-o", "suspended"), "Suspended") == 2
	}
	t.Run("released", func(t *testing.T) {
		held, err := d.hold(t.Context(), job{Devices: devices, Wait: true, Limit: holdLimit})
		pgtest.Check(t, err)
		if !suspended() {
			t.Error("they are not suspended")
		}
		pgtest.Check(t, held.release())
		writable(t, roots[0], 10*time.Second)
	})
	t.Run("too long", func(t *testing.T) {
		held, err := d.hold(t.Context(), job{Devices: devices, Wait: true, Limit: time.Second})
		pgtest.Check(t, err)
		for _, root := range roots {
			writable(t, root, 20*time.Second)
		}
		if err := held.release(); err == nil || !strings.Contains(err.Error(), "longer than 1s") {
			t.Errorf("the set would be called atomic: %v", err)
		} else {
			t.Log(err)
		}
	})
	t.Run("holder killed", func(t *testing.T) {
		held, err := d.hold(t.Context(), job{Devices: devices, Wait: true, Limit: holdLimit})
		pgtest.Check(t, err)
		pgtest.Check(t, held.cmd.Process.Kill())
		if err := held.release(); err == nil {
			t.Error("the set would be called atomic")
		}
		for _, root := range roots {
			writable(t, root, 10*time.Second)
		}
	})
	t.Run("starter killed", func(t *testing.T) {
		text, err := json.Marshal(job{Devices: devices, Wait: true, Limit: time.Minute})
		pgtest.Check(t, err)
		// A shell in the starter's place, which keeps the holder's input open.
		starter := exec.Command("bash", "-c", `(echo "$1"; sleep 600) | setsid "$2" "$3"`, "bash", string(text), d.Holder[0], d.Holder[1])
		starter.SysProcAttr = newGroupAttr()
		pgtest.Check(t, starter.Start())
		pgtest.Eventually(t, 20*time.Second, func() error {
			if !suspended() {
				return errNotFound
			}
			return nil
		})
		killGroup(starter.Process.Pid)
		_ = starter.Wait()
		for _, root := range roots {
			writable(t, root, 10*time.Second)
		}
	})
	t.Run("no such device", func(t *testing.T) {
		if _, err := d.hold(t.Context(), job{Devices: append(devices, "vg-three"), Wait: true, Limit: holdLimit}); err == nil {
			t.Error("there is no vg-three")
		} else {
			t.Log(err)
		}
		for _, root := range roots {
			writable(t, root, 10*time.Second)
		}
	})
}
