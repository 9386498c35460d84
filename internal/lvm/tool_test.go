package lvm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/restore"
	"pgsnap/internal/snap"
)

// tool is the real pgsnap with a configuration of its own.
type tool struct {
	t       *testing.T
	program string
	config  string
}

// programVariable names a pgsnap that is built already; without it, one is built.
const programVariable = "PGSNAP_PROGRAM"

func newTool(t *testing.T, catalog, dsn, lvm string) *tool {
	t.Helper()
	dir := t.TempDir()
	p := &tool{t: t, program: os.Getenv(programVariable), config: filepath.Join(dir, "pgsnap.toml")}
	if p.program == "" {
		p.program = filepath.Join(dir, "pgsnap")
		program(t, "go", "build", "-o", p.program, "pgsnap/cmd/pgsnap")
	}
	text := fmt.Sprintf("catalog = %q\n[cluster.main]\ndsn = %q\n[storage.lvm]\n%s\n", catalog, dsn, lvm)
	pgtest.Check(t, os.WriteFile(p.config, []byte(text), 0o600))
	return p
}

func (p *tool) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.program, args...)
	cmd.Env = append(os.Environ(), "PGSNAP_CONFIG="+p.config)
	return cmd
}

// must runs pgsnap with --json, which must succeed, and reads its document.
func (p *tool) must(into any, args ...string) {
	p.t.Helper()
	cmd := p.command(append(args, "--json")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil && into != nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		p.t.Fatalf("pgsnap %v: %v\n%s%s", args, err, out, stderr.String())
	}
}

// fails runs pgsnap, which must end with a code and say each of the texts.
func (p *tool) fails(code int, says []string, args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		p.t.Errorf("pgsnap %v: %v, not exit %d\n%s", args, err, code, out)
	}
	for _, text := range says {
		if !strings.Contains(string(out), text) {
			p.t.Errorf("pgsnap %v does not say %q:\n%s", args, text, out)
		}
	}
	p.t.Logf("pgsnap %v:\n%s", args, out)
	return string(out)
}

func (p *tool) take(args ...string) *snap.Backup {
	p.t.Helper()
	backup := new(snap.Backup)
	p.must(backup, append([]string{"take"}, args...)...)
	return backup
}

// status is that of a backup as list has it.
func (p *tool) status(id string) snap.Status {
	p.t.Helper()
	var backups []*snap.Backup
	p.must(&backups, "list")
	for _, backup := range backups {
		if backup.ID == id {
			return backup.Status
		}
	}
	return "absent"
}

// restore restores and starts a copy, whose balances must agree, and releases it.
func (p *tool) restore(id, to string) *restore.Result {
	p.t.Helper()
	result := new(restore.Result)
	p.must(result, "restore", id, "--to", to, "--start")
	instance, err := pgtest.Attach(result.DataDirectory, result.SocketDirectory, result.Port, "postgres")
	pgtest.Check(p.t, err)
	balances, err := pgtest.ReadBalances(p.t.Context(), pgtest.Connect(p.t, instance))
	pgtest.Check(p.t, err)
	if !balances.Agree() {
		p.t.Errorf("the restored balances differ: %+v", balances)
	}
	if rows := pgtest.Query(p.t, instance, "SELECT count(*) FROM pgbench_history"); rows == "0" {
		p.t.Error("nothing was restored of what pgbench wrote")
	}
	pgtest.Check(p.t, instance.Stop(p.t.Context(), pgtest.Fast))
	p.must(nil, "release", to)
	return result
}
