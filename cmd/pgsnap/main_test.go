package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/restore"
	"pgsnap/internal/snap"
)

// asProgram makes this test binary be pgsnap itself, so that the tests run what
// people run.
const asProgram = "PGSNAP_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// tool is pgsnap with a configuration of its own.
type tool struct {
	t       testing.TB
	config  string
	catalog string
}

// newTool configures pgsnap for one cluster.
func newTool(t testing.TB, lab *pgtest.Lab, dsn, driver string) *tool {
	t.Helper()
	dir, err := os.MkdirTemp(lab.Dir(), "pgsnap")
	pgtest.Check(t, err)
	tool := &tool{t: t, config: filepath.Join(dir, "pgsnap.toml"), catalog: filepath.Join(dir, "catalog")}
	text := fmt.Sprintf("catalog = %q\n[cluster.main]\ndsn = %q\ndriver = %q\n", tool.catalog, dsn, driver)
	pgtest.Check(t, os.WriteFile(tool.config, []byte(text), 0o644))
	return tool
}

// command is pgsnap, ready to be started.
func (p *tool) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "PGSNAP_CONFIG="+p.config)
	return cmd
}

// outcome is what a run of pgsnap left.
type outcome struct {
	code           int
	stdout, stderr string
}

func (p *tool) run(args ...string) outcome {
	p.t.Helper()
	cmd := p.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs pgsnap with --json, which must succeed, and reads its document.
func (p *tool) must(into any, args ...string) {
	p.t.Helper()
	done := p.run(append(args, "--json")...)
	if done.code != 0 {
		p.t.Fatalf("pgsnap %s: exit %d\n%s", strings.Join(args, " "), done.code, done.stderr)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal([]byte(done.stdout), into); err != nil {
		p.t.Fatalf("pgsnap %s: %v\n%s", strings.Join(args, " "), err, done.stdout)
	}
}

// fails runs pgsnap, which must end with a code and say each of the texts.
func (p *tool) fails(code int, says []string, args ...string) {
	p.t.Helper()
	done := p.run(args...)
	if done.code != code {
		p.t.Errorf("pgsnap %s: exit %d, want %d\n%s%s", strings.Join(args, " "), done.code, code, done.stdout, done.stderr)
	}
	for _, text := range says {
		if !strings.Contains(done.stderr, text) {
			p.t.Errorf("pgsnap %s: it does not say %q:\n%s", strings.Join(args, " "), text, done.stderr)
		}
	}
}

func (p *tool) take(args ...string) *snap.Backup {
	p.t.Helper()
	backup := new(snap.Backup)
	p.must(backup, append([]string{"take"}, args...)...)
	if backup.Status != snap.Complete {
		p.t.Fatalf("taken backup is %s", backup.Status)
	}
	return backup
}

func (p *tool) list() []*snap.Backup {
	p.t.Helper()
	var backups []*snap.Backup
	p.must(&backups, "list")
	return backups
}

// restored is a copy that pgsnap restored, and its server.
type restored struct {
	*restore.Result
	*pgtest.Instance
}

// restore restores and starts a copy, which is stopped and released at the end
// of the test.
func (p *tool) restore(id, to string, args ...string) restored {
	p.t.Helper()
	result := new(restore.Result)
	p.must(result, append([]string{"restore", id, "--to", to, "--start"}, args...)...)
	instance, err := pgtest.Attach(result.DataDirectory, result.SocketDirectory, result.Port, "postgres")
	pgtest.Check(p.t, err)
	copy := restored{result, instance}
	p.t.Cleanup(func() { p.release(copy) })
	return copy
}

// release stops a copy, if it runs, and removes it, if it is there.
func (p *tool) release(copy restored) {
	p.t.Helper()
	if _, err := os.Lstat(copy.Destination); err != nil {
		return
	}
	if copy.Running() {
		// the test's own context is over by the time of its clean-up
		if err := copy.Stop(context.Background(), pgtest.Immediate); err != nil {
			p.t.Error(err)
		}
	}
	p.must(nil, "release", copy.Destination)
}

// touchesNothingIn fails the test if a process of the copy's server has a file of the
// original open, or a directory of it as its own.
func (c restored) touchesNothingIn(t testing.TB, originals ...string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	pgtest.Check(t, err)
	seen := 0
	for _, process := range processes {
		stat, err := os.ReadFile(filepath.Join(process, "stat"))
		if err != nil {
			continue // ended meanwhile
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if filepath.Base(process) != strconv.Itoa(c.Result.PID) && fields[1] != strconv.Itoa(c.Result.PID) {
			continue
		}
		seen++
		links, _ := filepath.Glob(filepath.Join(process, "fd", "*"))
		for _, link := range append(links, filepath.Join(process, "cwd")) {
			target, err := os.Readlink(link)
			for _, original := range originals {
				if err == nil && snap.IsBelow(target, original) {
					t.Errorf("the copy's process %s uses %s", process, target)
				}
			}
		}
	}
	if seen < 2 {
		t.Errorf("found %d processes of the copy's server %d", seen, c.Result.PID)
	}
}
