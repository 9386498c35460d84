package reflink_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/drivertest"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// What a test tells its own program, run a second time: where to work.
const (
	topVariable    = "PGSNAP_TEST_TOP"
	farVariable    = "PGSNAP_TEST_FAR"
	volumeVariable = "PGSNAP_TEST_VOLUME"
)

// TestUnprivileged runs the suite as the user who runs the server.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		top, far := os.Getenv(topVariable), os.Getenv(farVariable)
		if top == "" {
			top, far = t.TempDir(), t.TempDir()
		}
		drivertest.Run(t, storageAt(t, reflink.Driver{}, top, far))
		t.Run("ClosedPlace", closedPlace)
		t.Run("ClosedFile", closedFile)
		return
	}
	lab, top := newFileSystem(t, "xfs", 600)
	cmd := itself(t, lab, "TestUnprivileged")
	cmd.Env = append(cmd.Env, topVariable+"="+top.Dir, farVariable+"="+farFrom(t, lab))
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as %s: %v\n%s", lab.User(), err, output)
	}
	if !strings.Contains(string(output), "--- PASS: TestUnprivileged/Clone/Near") {
		t.Errorf("as %s, the suite did not run:\n%.2000s", lab.User(), output)
	}
}

// itself prepares one test of this program to be run as the servers' user, who
// can't reach the program where it is.
func itself(t *testing.T, lab *pgtest.Lab, test string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	pgtest.Check(t, err)
	from, err := os.Open(program)
	pgtest.Check(t, err)
	defer from.Close()
	reachable := lab.Path("itself.test")
	to, err := os.OpenFile(reachable, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	pgtest.Check(t, err)
	_, err = io.Copy(to, from)
	pgtest.Check(t, errors.Join(err, to.Close()))
	return lab.Command(t.Context(), reachable, "-test.run=^"+test+"$", "-test.v", "-test.timeout=5m")
}

// closedPlace has a data directory beside which its owner can't write.
func closedPlace(t *testing.T) {
	top := t.TempDir()
	pgdata := filepath.Join(top, "data")
	put(t, pgdata, "PG_VERSION")
	pgtest.Check(t, os.Chmod(top, 0o500))
	t.Cleanup(func() { _ = os.Chmod(top, 0o700) })
	_, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	if err == nil || !strings.Contains(err.Error(), top) || !strings.Contains(fault.HintOf(err), "[storage.reflink]") {
		t.Errorf("the error is %v, the hint %q", err, fault.HintOf(err))
	}
	_, err = reflink.Driver{Directory: t.TempDir()}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
}

// closedFile has a file that the user can't read: a backup without it would be
// no backup.
func closedFile(t *testing.T) {
	top := t.TempDir()
	pgdata := filepath.Join(top, "data")
	put(t, pgdata, "PG_VERSION", "base/5/1259")
	closed := filepath.Join(pgdata, "base/5/1259")
	pgtest.Check(t, os.Chmod(closed, 0))
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	_, err = reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), closed) {
		t.Errorf("the error is %v", err)
	}
	if found := names(t, top); len(found) != 5 {
		t.Errorf("after the failure there are %q", found)
	}
}

// TestKilled kills the process that copies.
func TestKilled(t *testing.T) {
	if text := os.Getenv(volumeVariable); text != "" {
		var volume snap.Volume
		pgtest.Check(t, json.Unmarshal([]byte(text), &volume))
		_, err := reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", []snap.Volume{volume}, nil)
		pgtest.Check(t, err)
		return
	}
	lab, top := newFileSystem(t, "ext4", 600)
	pgdata, err := lab.Mkdir(filepath.Join(top.Dir, "data"))
	pgtest.Check(t, err)
	put(t, pgdata, "PG_VERSION")
	for _, name := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, name), noise(16<<20), 0o644))
	}
	pgtest.Check(t, os.Chmod(filepath.Join(pgdata, "PG_VERSION"), 0o644))
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	text, err := json.Marshal(volumes[0])
	pgtest.Check(t, err)

	cmd := itself(t, lab, "TestKilled")
	cmd.Env = append(cmd.Env, volumeVariable+"="+string(text))
	pgtest.Check(t, cmd.Start())
	pgtest.Eventually(t, 30*time.Second, func() error { return copying(t, top.Dir) })
	pgtest.Check(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process had ended before it was killed")
	}

	listed, err := reflink.Driver{}.List(t.Context(), volumes)
	if err != nil || len(listed) != 1 || listed[0].Complete {
		t.Fatalf("after the kill there are %+v, %v", listed, err)
	}
	before := names(t, pgdata)
	set, err := reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	for _, name := range before {
		if sum(t, filepath.Join(pgdata, name)) != sum(t, filepath.Join(set.Snapshots[0].Directory, name)) {
			t.Errorf("%s has another content in the second copy", name)
		}
	}
	pgtest.Check(t, reflink.Driver{}.Delete(t.Context(), volumes[0], "pgsnap-1"))
	if found, err := os.ReadDir(top.Dir); err != nil || len(found) != 2 { // the other is lost+found
		t.Errorf("at the end there are %v, %v", found, err)
	}
}

// copying tells when the copy of a file has begun.
func copying(t *testing.T, top string) error {
	for _, name := range names(t, filepath.Join(top)) {
		if strings.HasPrefix(name, ".pgsnap/pgsnap-1/data/") && !strings.HasSuffix(name, "/") {
			return nil
		}
	}
	return errors.New("no file is copied")
}
