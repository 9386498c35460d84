package pgctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgsnap/internal/fault"
	"pgsnap/internal/pgtest"
)

const runningPID = "4711\n/var/lib/postgresql/15/main\n1763622000\n5433\n/var/run/postgresql\nlocalhost\n  5432001     32768\nready   \n"

var postmasterFiles = map[string]struct {
	text string
	want Postmaster // no PID where it is refused
}{
	"ready": {runningPID, Postmaster{4711, "/var/lib/postgresql/15/main", 5433, "/var/run/postgresql", "ready"}},
	"starting, by a newer server": {"4711\n/data\n1763622000\n5433\n/tmp\n\n  5432001     32768\nstarting\n",
		Postmaster{4711, "/data", 5433, "/tmp", "starting"}},
	"just begun":       {"4711\n/data\n1763622000\n5432\n\n", Postmaster{4711, "/data", 5432, "", ""}},
	"no socket":        {"4711\n/data\n1763622000\n5432\n\n*\n", Postmaster{4711, "/data", 5432, "", ""}},
	"process id alone": {"4711", Postmaster{PID: 4711}},
	"single-user":      {"-4711\n/data\n1763622000\n5432\n\n", Postmaster{4711, "/data", 5432, "", ""}},
	"odd directory":    {"4711\n/srv/a b\\c\n1\n5432\n/tmp\n*\n1 2\nready\n", Postmaster{4711, `/srv/a b\c`, 5432, "/tmp", "ready"}},
	"no port":          {"4711\n/data\n1763622000\nx\n", Postmaster{4711, "/data", 0, "", ""}},
	"largest":          {"2147483647\n", Postmaster{PID: 2147483647}},

	"empty":              {"", Postmaster{}},
	"empty line":         {"\n/data\n", Postmaster{}},
	"no number":          {"ready\n/data\n", Postmaster{}},
	"number and more":    {"4711 x\n", Postmaster{}},
	"zero":               {"0\n/data\n", Postmaster{}}, // kill(0, …) means our own process group
	"too large":          {"4294967297\n/data\n", Postmaster{}},
	"too small":          {"-9223372036854775808\n/data\n", Postmaster{}},
	"beyond every limit": {"99999999999999999999\n", Postmaster{}},
	"binary":             {"\x00\x01\x02", Postmaster{}},
}

func TestPostmasterPID(t *testing.T) {
	for name, test := range postmasterFiles {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "postmaster.pid")
			pgtest.Check(t, os.WriteFile(path, []byte(test.text), 0o600))
			got, err := ReadPostmasterPID(dir)
			if got != test.want || (err == nil) != (test.want.PID != 0) {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name the file", err)
			}
			if _, err := Running(dir); (err == nil) != (test.want.PID != 0) {
				t.Errorf("whether it runs: %v", err)
			}
		})
	}
	if _, err := ReadPostmasterPID(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzPostmasterPID(f *testing.F) {
	for _, test := range postmasterFiles {
		f.Add([]byte(test.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parsePostmasterPID(data)
		if err == nil && (got.PID <= 0 || got.PID > 1<<31) {
			t.Errorf("%q has process %d", data, got.PID)
		}
	})
}

func TestRunning(t *testing.T) {
	dir := t.TempDir()
	assert := func(want bool) {
		t.Helper()
		if running, err := Running(dir); err != nil || running != want {
			t.Errorf("running: %v, %v", running, err)
		}
	}
	assert(false) // no file
	process := exec.Command("sleep", "60")
	pgtest.Check(t, process.Start())
	pgtest.Check(t, os.WriteFile(filepath.Join(dir, "postmaster.pid"), fmt.Appendf(nil, "%d\n", process.Process.Pid), 0o600))
	assert(true)
	pgtest.Check(t, process.Process.Kill())
	_ = process.Wait()
	assert(false) // left behind
}

// testPostmaster compares what a real server wrote.
func testPostmaster(t *testing.T, cluster *pgtest.Cluster) {
	postmaster, err := ReadPostmasterPID(cluster.DataDir)
	pgtest.Check(t, err)
	pid, err := cluster.PID()
	pgtest.Check(t, err)
	if want := (Postmaster{pid, cluster.DataDir, cluster.Port, cluster.SocketDir, "ready"}); postmaster != want {
		t.Errorf("got %+v, want %+v", postmaster, want)
	}
	bin, err := filepath.EvalSymlinks(cluster.Server.BinDir)
	pgtest.Check(t, err)
	if got := postmaster.BinDirectory(); got != bin {
		t.Errorf("its programs are in %q, want %q", got, bin)
	}
	if got := (Postmaster{PID: os.Getpid()}).BinDirectory(); got != "" {
		t.Errorf("the programs of a process that is no server are in %q", got)
	}
}

func TestMajorOf(t *testing.T) {
	for said, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 10.23\n":                          10,
		"postgres (PostgreSQL) 18.4":                             18,
		"postgres (PostgreSQL) 18beta1":                          18,
		"postgres (PostgreSQL) 19devel\n":                        19,
		"postgres (PostgreSQL) 9.6.24":                           9,
		"postgres (PostgreSQL) 17":                               17,
		"psql (PostgreSQL) 16.1":                                 16,
		"postgres (PostgreSQL) ":                                 0,
		"postgres (EnterpriseDB) 15.1":                           0,
		"":                                                       0,
		"postgres (PostgreSQL) x15":                              0,
		"postgres (PostgreSQL) 99999999999999999999.1":           0,
	} {
		if got := majorOf(said); got != want && !(want == 0 && got > 100) {
			t.Errorf("%q is version %d, want %d", said, got, want)
		}
	}
}

func TestPrograms(t *testing.T) {
	server := pgtest.NeedServer(t, "16")
	if dir, err := Programs(t.Context(), 16, server.BinDir); err != nil || dir != server.BinDir {
		t.Errorf("found in %q, %v", dir, err)
	}
	// The given directory is only a hint: it may be another version's by now.
	if dir, err := Programs(t.Context(), 15, server.BinDir); err != nil || dir != pgtest.NeedServer(t, "debian-15").BinDir {
		t.Errorf("15 found in %q, %v", dir, err)
	}
	t.Setenv("PATH", t.TempDir()+":"+server.BinDir)
	if dir, err := Programs(t.Context(), 16, ""); err != nil || dir != server.BinDir {
		t.Errorf("on the search path it was found in %q, %v", dir, err)
	}
	_, err := Programs(t.Context(), 8, server.BinDir)
	if fault.KindOf(err) != fault.Server || !strings.Contains(fault.HintOf(err), "bin_directory") || !strings.Contains(err.Error(), strconv.Itoa(8)) {
		t.Errorf("one that is not there: %v (%s)", err, fault.HintOf(err))
	}
}
