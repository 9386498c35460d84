package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestBadInput: each wrong thing gets one clear error with its exit code, and
// leaves nothing behind.
func TestBadInput(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "18"), pgtest.Options{DataDir: lab.Path("site", "data")})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	backup := tool.take()
	before := everything(t, lab.Path("site"))

	full := lab.Path("not empty")
	pgtest.Check(t, os.MkdirAll(filepath.Join(full, "something"), 0o755))
	inside := filepath.Join(cluster.DataDir, "base", "copy")
	snapshots := filepath.Join(filepath.Dir(backup.Snapshots[0].Directory), "copy")
	for _, test := range []struct {
		name string
		code int
		says []string
		args []string
	}{
		{"exclusive on 18", 3, []string{"removed in 15"}, []string{"take", "--mode", "exclusive"}},
		{"no such mode", 2, []string{`"inclusive"`, "non-exclusive"}, []string{"take", "--mode", "inclusive"}},
		{"label with a line break", 2, []string{"backup label", `'\n'`}, []string{"take", "--label", "x\nSTART TIMELINE: 99"}},
		{"label too long", 2, []string{"1001 bytes"}, []string{"take", "--label", strings.Repeat("x", 1001)}},
		{"no such cluster", 5, []string{`"other"`, "main"}, []string{"take", "--cluster", "other"}},
		{"no such option", 2, []string{"--labl"}, []string{"take", "--labl", "x"}},
		{"no such backup", 5, []string{"20200101-000000-0000", "pgsnap list"}, []string{"show", "20200101-000000-0000"}},
		{"restore of no such backup", 5, []string{"nonsense"}, []string{"restore", "nonsense", "--to", lab.Path("x")}},
		{"delete of no such backup", 5, []string{"../main"}, []string{"delete", "../main"}},
		{"delete of latest", 2, []string{"takes ids"}, []string{"delete", "latest"}},
		{"no destination", 2, []string{"--to"}, []string{"restore", "latest"}},
		{"destination not empty", 2, []string{"not empty", "something"}, []string{"restore", "latest", "--to", full}},
		{"destination a file", 2, []string{"not a directory"}, []string{"restore", "latest", "--to", tool.config}},
		{"destination in the live cluster", 2, []string{cluster.DataDir}, []string{"restore", "latest", "--to", inside}},
		{"destination among snapshots", 2, []string{"among snapshots"}, []string{"restore", "latest", "--to", snapshots}},
		{"destination in the catalog", 2, []string{"catalog"}, []string{"restore", "latest", "--to", filepath.Join(tool.catalog, "main", "x")}},
		{"unknown tablespace", 2, []string{"no tablespace at /nowhere"}, []string{"restore", "latest", "--to", lab.Path("x"), "--tablespace", "/nowhere=/else"}},
		{"mapping not a mapping", 2, []string{"OLD=NEW"}, []string{"restore", "latest", "--to", lab.Path("x"), "--tablespace", "/nowhere"}},
		{"no such port", 2, []string{"99999"}, []string{"restore", "latest", "--to", lab.Path("x"), "--port", "99999"}},
		{"list of no such cluster", 5, []string{`"other"`, "main"}, []string{"list", "--cluster", "other"}},
		{"release of no copy", 5, []string{"no copy"}, []string{"release", lab.Path("x")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tool.t = t
			tool.fails(test.code, append(test.says, "hint:"), test.args...)
		})
	}
	tool.t = t
	if clones := tool.run("clones", "--json"); strings.TrimSpace(clones.stdout) != "[]" {
		t.Errorf("clones --json: %q", clones.stdout)
	}
	if backups := tool.list(); len(backups) != 1 || backups[0].Status != snap.Complete {
		t.Errorf("the catalog has changed: %v", backups)
	}
	if after := everything(t, lab.Path("site")); after != before {
		t.Errorf("the storage has changed from\n%s\nto\n%s", before, after)
	}
	if _, err := os.Lstat(lab.Path("x")); err == nil {
		t.Error("a destination is left behind")
	}
}

// everything lists the directories below a path, but for what a server makes and
// removes by itself.
func everything(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	pgtest.Check(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() != "pgsql_tmp" {
			names = append(names, path)
		}
		return nil
	}))
	return strings.Join(names, "\n")
}

// TestServerTrouble: a server that is down, asks for a password, or is a standby.
func TestServerTrouble(t *testing.T) {
	lab := pgtest.New(t)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "13"), pgtest.Options{Auth: "scram-sha-256", Password: "right horse"})
	t.Run("wrong password", func(t *testing.T) {
		tool := newTool(t, lab, cluster.DSN()+" password='wrong horse'", "auto")
		tool.fails(3, []string{"password authentication failed", "password file"}, "take")
		if done := tool.run("take"); strings.Contains(done.stderr, "horse") {
			t.Errorf("the password is in the error: %s", done.stderr)
		}
	})
	t.Run("standby in exclusive mode", func(t *testing.T) {
		open := pgtest.Start(t, lab, pgtest.NeedServer(t, "13"), pgtest.Options{})
		standby := pgtest.Standby(t, lab, open)
		newTool(t, lab, standby.DSN(), "auto").fails(3, []string{"standby"}, "take", "--mode", "exclusive")
	})
	t.Run("down", func(t *testing.T) {
		pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Fast))
		tool := newTool(t, lab, cluster.DSN(), "auto")
		tool.fails(3, []string{"cannot connect", "is the server running"}, "take")
		if backups := tool.list(); len(backups) != 0 {
			t.Errorf("recorded: %v", backups)
		}
	})
}

// TestConfiguration: wrong files get an error that names the key.
func TestConfiguration(t *testing.T) {
	lab := pgtest.New(t)
	tool := newTool(t, lab, "host=/nowhere", "auto")
	for text, says := range map[string]string{
		"[cluster.main]\ndns = \"x\"\n":                      `did you mean "cluster.main.dsn"`,
		"catalogue = \"/x\"\n":                               `did you mean "catalog"`,
		"catalog = \"relative\"\n":                           "not an absolute path",
		"[cluster.main]\nmode = \"both\"\n":                  `"both"`,
		"[cluster.\"a/b\"]\n":                                `"a/b"`,
		"[cluster.main\n":                                    tool.config,
		"[cluster.main]\ndriver = \"tape\"\n":                `no driver "tape"`,
		"[cluster.a]\n[cluster.b]\n":                         "several clusters",
		"[cluster.main]\ndsn = \"host=/x port=no-number\"\n": "connection string",
	} {
		pgtest.Check(t, os.WriteFile(tool.config, []byte(text), 0o600))
		tool.fails(2, []string{says, "hint:"}, "take")
	}
	tool.config = lab.Path("absent.toml")
	tool.fails(2, []string{tool.config}, "take")
}

// TestForeignStorage: a driver that does not know the file system says so.
func TestForeignStorage(t *testing.T) {
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "ext4", 300)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "17"), pgtest.Options{DataDir: filepath.Join(fs.Dir, "data")})
	tool := newTool(t, lab, cluster.DSN(), "btrfs")
	tool.fails(4, []string{cluster.DataDir, "driver btrfs", "hint:"}, "take")
	t.Run("link to a directory elsewhere", func(t *testing.T) {
		tool := newTool(t, lab, cluster.DSN(), "auto")
		elsewhere := lab.Path("elsewhere")
		pgtest.Check(t, os.MkdirAll(elsewhere, 0o755))
		link := filepath.Join(cluster.DataDir, "pg_twophase2")
		pgtest.Check(t, os.Symlink(elsewhere, link))
		tool.fails(4, []string{link, "hint:"}, "take")
		if backups := tool.list(); len(backups) != 0 {
			t.Errorf("recorded: %v", backups)
		}
	})
}

// TestFullCatalog: the catalog's disk is full, before the backup or during it.
func TestFullCatalog(t *testing.T) {
	lab := pgtest.New(t)
	fs := pgtest.Mount(t, lab, "ext4", 20)
	cluster := pgtest.Start(t, lab, pgtest.NeedServer(t, "16"), pgtest.Options{DataDir: lab.Path("site", "data")})
	tool := newTool(t, lab, cluster.DSN(), "auto")
	tool.catalog = filepath.Join(fs.Dir, "catalog")
	pgtest.Check(t, os.WriteFile(tool.config, fmt.Appendf(nil, "catalog = %q\n[cluster.main]\ndsn = %q\n", tool.catalog, cluster.DSN()), 0o600))
	tool.must(nil, "delete", tool.take().ID)

	filler := filepath.Join(fs.Dir, "filler")
	free := fill(t, filler)
	tool.fails(4, []string{"no space left", "hint:"}, "take")
	// Room for the record and the label, but not for the WAL of a busy server.
	pgtest.Check(t, os.Truncate(filler, free-48<<10))
	load := pgtest.Load(t, cluster, pgtest.BenchOptions{})
	tool.fails(4, []string{"no space left"}, "take")
	if left := everything(t, lab.Path("site")); strings.Contains(left, ".pgsnap") {
		t.Errorf("snapshots are left:\n%s", left)
	}
	load.Kill()
	pgtest.Check(t, os.Remove(filler))
	last := tool.take()
	fill(t, filler)
	tool.must(nil, "delete", last.ID) // the way out of it
}

// fill writes a file until the file system is full, and is its size.
func fill(t *testing.T, path string) int64 {
	t.Helper()
	file, err := os.Create(path)
	pgtest.Check(t, err)
	block := make([]byte, 4096)
	written := int64(0)
	for {
		n, err := file.Write(block)
		written += int64(n)
		if err != nil {
			_ = file.Close() // full, as wanted
			return written
		}
	}
}
