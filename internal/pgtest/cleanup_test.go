package pgtest_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
)

// TestFileSystems puts a cluster on each kind of file system, leaves it running, and looks at what is left of it.
func TestFileSystems(t *testing.T) {
	needRoot(t)
	for kind, sizeMiB := range map[string]int{"xfs": 512, "btrfs": 512, "ext4": 512} {
		t.Run(kind, func(t *testing.T) {
			lab, err := pgtest.NewLab()
			pgtest.Check(t, err)
			t.Cleanup(func() { _ = lab.Close() })
			fs := pgtest.Mount(t, lab, kind, sizeMiB)
			dir := filepath.Join(fs.Dir, "data")
			if kind == "btrfs" {
				dir, err = lab.Subvolume(t.Context(), fs, "a subvolume")
				pgtest.Check(t, err)
			}
			// One mount below another, and one the lab knows nothing of.
			below, err := lab.LoopFS(t.Context(), "ext4", 20)
			pgtest.Check(t, err)
			inner := filepath.Join(fs.Dir, "in ner")
			pgtest.Check(t, os.Mkdir(inner, 0o755))
			pgtest.Check(t, syscall.Mount(below.Dir, inner, "", syscall.MS_BIND, ""))

			cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "15"), pgtest.Options{DataDir: dir})
			pid, err := cluster.PID()
			pgtest.Check(t, err)
			bench := pgtest.Load(t, cluster, pgtest.BenchOptions{})
			if kind != "ext4" {
				pgtest.Check(t, exec.CommandContext(t.Context(), "cp", "--reflink=always", filepath.Join(dir, "PG_VERSION"), filepath.Join(fs.Dir, "copy")).Run())
			}
			bench.Kill()
			begin := time.Now()
			if err := lab.Close(); err != nil {
				t.Error(err)
			}
			t.Logf("taken away in %v", time.Since(begin))
			assertGone(t, lab.Dir())
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				t.Errorf("process %d still runs", pid)
			}
		})
	}
}

// TestFullDisk fills a small file system.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "ext4", 20)
	if err := os.WriteFile(filepath.Join(fs.Dir, "big"), make([]byte, 40<<20), 0o600); err == nil {
		t.Error("40 MB fit into 20")
	}
}

// TestFrozen closes a lab whose file system is frozen under a server that writes to it.
func TestFrozen(t *testing.T) {
	needRoot(t)
	lab, err := pgtest.NewLab()
	pgtest.Check(t, err)
	t.Cleanup(func() { _ = lab.Close() })
	fs := pgtest.Mount(t, lab, "xfs", 300)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "18"), pgtest.Options{DataDir: filepath.Join(fs.Dir, "data")})
	ledger := pgtest.WriteLedger(t, cluster, 0)
	pgtest.Check(t, exec.CommandContext(t.Context(), "fsfreeze", "--freeze", fs.Dir).Run())
	time.Sleep(300 * time.Millisecond)
	if err := lab.Close(); err != nil {
		t.Error(err)
	}
	assertGone(t, lab.Dir())
	ledger.Stop()
	if wait := ledger.LongestWait(); wait < 250*time.Millisecond {
		t.Errorf("the ledger waited only %v for a frozen file system", wait)
	}
}

// TestInUse has somebody work in a file system while the lab is closed: that is an error which names him, and nothing is left.
func TestInUse(t *testing.T) {
	needRoot(t)
	lab, err := pgtest.NewLab()
	pgtest.Check(t, err)
	t.Cleanup(func() { _ = lab.Close() })
	fs := pgtest.Mount(t, lab, "ext4", 20)
	user := exec.CommandContext(t.Context(), "sleep", "60")
	user.Dir = fs.Dir
	pgtest.Check(t, user.Start())
	err = lab.Close()
	if err == nil || !strings.Contains(err.Error(), "(sleep: ") {
		t.Errorf("closing said %v", err)
	}
	pgtest.Check(t, user.Process.Kill())
	_ = user.Wait()
	assertGone(t, lab.Dir())
}

// TestManyFileSystems mounts several at once, as parallel tests do.
func TestManyFileSystems(t *testing.T) {
	needRoot(t)
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			lab := pgtest.New(t)
			fs := pgtest.Mount(t, lab, "ext4", 20)
			pgtest.Check(t, os.WriteFile(filepath.Join(fs.Dir, "file"), nil, 0o600))
		})
	}
}

// TestKilledRun kills a process that holds a lab with a mount, a server and a load: its server dies with it, and the next lab takes
// away the rest.
func TestKilledRun(t *testing.T) {
	needRoot(t)
	const role = "PGSNAP_TEST_ROLE"
	if os.Getenv(role) == "victim" {
		lab := pgtest.New(t)
		fs := pgtest.Mount(t, lab, "xfs", 300)
		cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "13"), pgtest.Options{DataDir: filepath.Join(fs.Dir, "data")})
		pgtest.Load(t, cluster, pgtest.BenchOptions{})
		pid, err := cluster.PID()
		pgtest.Check(t, err)
		_, _ = os.Stdout.WriteString("lab " + lab.Dir() + " " + strconv.Itoa(pid) + "\n")
		time.Sleep(time.Minute)
		return
	}
	// The lab of somebody who lives must stay.
	bystander := pgtest.New(t)

	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledRun$")
	victim.Env = append(os.Environ(), role+"=victim")
	output, err := victim.StdoutPipe()
	pgtest.Check(t, err)
	pgtest.Check(t, victim.Start())
	var dir, pid string
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		if fields := strings.Fields(scanner.Text()); len(fields) == 3 && fields[0] == "lab" {
			dir, pid = fields[1], fields[2]
			break
		}
	}
	if dir == "" {
		t.Fatal("the victim made no lab")
	}
	pgtest.Check(t, victim.Process.Kill())
	_ = victim.Wait()
	pgtest.Eventually(t, 10*time.Second, func() error {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			return os.ErrExist
		}
		return nil
	})
	// Another test's new lab may have swept it already.
	_, err = pgtest.Sweep()
	pgtest.Check(t, err)
	assertGone(t, dir)
	if _, err := os.Stat(bystander.Dir()); err != nil {
		t.Errorf("the lab of a living process was swept: %v", err)
	}
}

// TestPanickingRun lets a child process panic with a server running.
func TestPanickingRun(t *testing.T) {
	const role = "PGSNAP_TEST_ROLE"
	if os.Getenv(role) == "panic" {
		lab := pgtest.New(t)
		pgtest.Start(t, lab, pgtest.NeedServer(t, "17"), pgtest.Options{})
		_, _ = os.Stdout.WriteString("lab " + lab.Dir() + "\n")
		panic("as intended")
	}
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanickingRun$")
	victim.Env = append(os.Environ(), role+"=panic")
	output, err := victim.Output()
	if err == nil {
		t.Fatal("the victim did not panic")
	}
	_, rest, _ := strings.Cut(string(output), "lab ")
	dir, _, _ := strings.Cut(rest, "\n")
	if dir == "" {
		t.Fatalf("the victim made no lab:\n%s", output)
	}
	assertGone(t, dir)
}

// assertGone fails the test when something of a directory is left: files, mounts, loop devices, processes.
func assertGone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	pgtest.Check(t, err)
	if strings.Contains(string(mounts), dir) {
		t.Errorf("something is still mounted below %s:\n%s", dir, mounts)
	}
	if os.Geteuid() == 0 {
		// The kernel detaches a device a moment after the unmounting.
		pgtest.Eventually(t, 5*time.Second, func() error {
			devices, err := exec.CommandContext(context.Background(), "losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").CombinedOutput()
			if err == nil && strings.Contains(string(devices), dir) {
				err = &os.PathError{Op: "losetup", Path: string(devices), Err: os.ErrExist}
			}
			return err
		})
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	pgtest.Check(t, err)
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			t.Errorf("%s is still in %s", link, cwd)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
}
