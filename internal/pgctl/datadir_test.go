package pgctl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
)

func TestTransientFile(t *testing.T) {
	for path, want := range map[string]bool{
		"postmaster.pid": true, "postmaster.opts": true, "backup_label": true, "backup_label.old": true, "tablespace_map": true,
		"tablespace_map.old": true, "backup_manifest": true, "postgresql.auto.conf.tmp": true, "current_logfiles.tmp": true,
		"base/pgsql_tmp": true, "base/pgsql_tmp/pgsql_tmp4711.0": true, "base/16384/pgsql_tmp4711.0": true,
		"global/pg_internal.init": true, "base/1/pg_internal.init": true, "base/1/pg_internal.init.4711": true,
		"PG_15_202209061/pgsql_tmp": true, // of a tablespace

		"PG_VERSION": false, "postgresql.conf": false, "postgresql.auto.conf": false, "current_logfiles": false, "recovery.signal": false,
		"global/pg_control": false, "base/1/1259": false, "base/1/backup_label": false, "log/postmaster.pid": false,
		"my_pgsql_tmp": false, "base/1/x.pg_internal.init": false, "": false, "base": false,
	} {
		if got := TransientFile(path); got != want {
			t.Errorf("%q is left out: %v", path, got)
		}
	}
}

func TestTransientContent(t *testing.T) {
	for path, want := range map[string]bool{
		"pg_wal": true, "pg_wal/archive_status": true, "pg_wal/summaries": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true,
		"pg_serial": true, "pg_snapshots": true, "pg_stat_tmp": true, "pg_subtrans": true,

		"pg_xact": false, "pg_multixact": false, "pg_commit_ts": false, "pg_logical": false, "pg_stat": false, "pg_tblspc": false, "pg_twophase": false,
		"base": false, "global": false, "base/pg_wal": false, "pg_replslot/mine": false, "pg_walx": false, "": false,
	} {
		if got := TransientContent(path); got != want {
			t.Errorf("the content of %q is left out: %v", path, got)
		}
	}
}

// testTransientDirectories: what is emptied is there in every version.
func testTransientDirectories(t *testing.T, cluster *pgtest.Cluster) {
	for _, directory := range transientDirectories {
		if info, err := os.Stat(filepath.Join(cluster.DataDir, directory)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", directory, err)
		}
	}
}

// TestReadFileAsOwner: root reads no more than the server itself could.
func TestReadFileAsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	lab := pgtest.New(t)
	dir, err := lab.Mkdir("data")
	pgtest.Check(t, err)
	facts := Facts{}
	facts.OwnerUID, facts.OwnerGID, err = Owner(dir)
	pgtest.Check(t, err)
	write := func(name string, own bool) string {
		t.Helper()
		path := filepath.Join(dir, name)
		pgtest.Check(t, os.WriteFile(path, []byte(name), 0o600))
		if own {
			pgtest.Check(t, lab.Own(path))
		}
		return path
	}
	secret := write("secret", false)
	link := filepath.Join(dir, "link")
	pgtest.Check(t, os.Symlink(secret, link))
	if data, err := facts.ReadFileAsOwner(write("pg_hba.conf", true)); err != nil || string(data) != "pg_hba.conf" {
		t.Errorf("its own file: %q, %v", data, err)
	}
	for _, path := range []string{secret, link, "/etc/shadow"} {
		if data, err := facts.ReadFileAsOwner(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %d bytes, %v", path, len(data), err)
		}
	}
	if _, err := facts.ReadFileAsOwner(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("missing: %v", err)
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("afterwards root reads %q, %v", data, err)
	}
}
