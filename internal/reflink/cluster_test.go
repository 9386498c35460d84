package reflink_test

import (
	"encoding/binary"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgsnap/internal/beside"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/reflink"
	"pgsnap/internal/snap"
)

// controlData is a control file as PostgreSQL 13 to 16 write it.
func controlData() []byte {
	data := make([]byte, 8192)
	binary.LittleEndian.PutUint64(data, 7000000000000000001)
	binary.LittleEndian.PutUint32(data[8:], 1300)
	sum := crc32.Checksum(data[:288], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(data[288:], sum)
	return data
}

// put writes files, each with its own path in it, and their directories.
func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		pgtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if strings.HasSuffix(name, "/") {
			pgtest.Check(t, os.MkdirAll(path, 0o700))
			continue
		}
		pgtest.Check(t, os.WriteFile(path, []byte(name), 0o600))
	}
}

// names are all paths below a directory; those of directories end with a slash.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	pgtest.Check(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		relative, _ := filepath.Rel(dir, path)
		if entry.IsDir() {
			relative += "/"
		}
		if relative != "./" {
			found = append(found, relative)
		}
		return err
	}))
	slices.Sort(found)
	return found
}

// cut takes one snapshot of paths, the first of which is the data directory, and
// returns where each volume's content is.
func cut(t *testing.T, paths ...snap.Path) []string {
	t.Helper()
	volumes, err := reflink.Driver{}.Resolve(t.Context(), paths)
	pgtest.Check(t, err)
	set, err := reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, err)
	var contents []string
	for _, snapshot := range set.Snapshots {
		contents = append(contents, snapshot.Directory)
	}
	return contents
}

func data(path string) snap.Path { return snap.Path{Role: snap.DataDirectory, Path: path} }

// TestLeavesOut has everything that the documentation of pg_basebackup names as
// left out of a backup, and what only looks like it.
func TestLeavesOut(t *testing.T) {
	top := t.TempDir()
	pgdata, wal, space := filepath.Join(top, "data"), filepath.Join(top, "wal"), filepath.Join(top, "space")
	kept := []string{
		"PG_VERSION", "postgresql.auto.conf", "base/5/1259", "base/5/2619_fsm", "global/1262", "pg_xact/0000",
		"pg_logical/replorigin_checkpoint", "pg_multixact/members/0000", "log/postgresql.log", "standby.signal",
		// only their content goes
		"pg_dynshmem/", "pg_notify/", "pg_replslot/", "pg_serial/", "pg_snapshots/", "pg_stat_tmp/", "pg_subtrans/", "pg_wal/",
		// these names mean something in one place only
		"base/5/postmaster.pid", "base/5/pg_wal/file", "base/pg_replslot/file", "my_backup_label",
	}
	put(t, pgdata, kept...)
	pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, "global/pg_control"), controlData(), 0o600))
	want := names(t, pgdata)
	put(t, pgdata,
		"postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old",
		"backup_manifest", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
		"pg_internal.init", "global/pg_internal.init", "base/5/pg_internal.init.123", "base/pgsql_tmp/pgsql_tmp123.0",
		"pgsql_tmp/file",
		"pg_dynshmem/mmap.1", "pg_notify/0000", "pg_replslot/slot/state", "pg_serial/0000", "pg_snapshots/1-1", "pg_stat_tmp/global.stat",
		"pg_subtrans/0000", "pg_wal/000000010000000000000001", "pg_wal/archive_status/000000010000000000000001.ready", "pg_wal/summaries/x",
		beside.Folder+"/somebody's/data",
	)
	pgtest.Check(t, syscall.Mkfifo(filepath.Join(pgdata, "pipe"), 0o600)) // would have a reader wait
	put(t, wal, "000000010000000000000001", "archive_status/000000010000000000000001.done")
	put(t, space, "PG_16_202307071/5/16400")
	wantSpace := names(t, space)
	put(t, space, "PG_16_202307071/pgsql_tmp/pgsql_tmp9.1")

	contents := cut(t, data(pgdata), snap.Path{Role: snap.WALDirectory, Path: wal}, snap.Path{Role: snap.Tablespace, Path: space, OID: 16384})
	for index, want := range map[string][]string{"data": want, "wal": nil, "space": wantSpace} {
		content := contents[slices.IndexFunc(contents, func(c string) bool { return filepath.Base(c) == index })]
		if found := names(t, content); !slices.Equal(found, want) {
			t.Errorf("the snapshot of %s holds\n%q, not\n%q", index, found, want)
		}
	}
}

// TestDataBelowVolume has the data directory, with a WAL directory nested in it,
// below a directory that is a volume for another reason.
func TestDataBelowVolume(t *testing.T) {
	space := filepath.Join(t.TempDir(), "space")
	put(t, space, "16400", "pg_replslot/kept", "data/PG_VERSION", "data/pg_replslot/slot/state", "data/postmaster.pid", "data/wal/000000010000000000000001")
	pgdata := filepath.Join(space, "data")
	contents := cut(t, data(pgdata), snap.Path{Role: snap.Tablespace, Path: space, OID: 1}, snap.Path{Role: snap.WALDirectory, Path: filepath.Join(pgdata, "wal")})
	want := []string{"16400", "data/", "data/PG_VERSION", "data/pg_replslot/", "data/wal/", "pg_replslot/", "pg_replslot/kept"}
	if found := names(t, contents[0]); len(contents) != 1 || !slices.Equal(found, want) {
		t.Errorf("the snapshot holds %q, not %q", found, want)
	}
}

// TestNestedMount has another file system mounted below the data directory: it
// is a part of the copy.
func TestNestedMount(t *testing.T) {
	lab, top := newFileSystem(t, "xfs", 300)
	other := pgtest.Mount(t, lab, "ext4", 20)
	pgdata := filepath.Join(top.Dir, "data")
	put(t, pgdata, "PG_VERSION", "base/5/", "zzz/last")
	put(t, other.Dir, "1259")
	nested := filepath.Join(pgdata, "base/5")
	pgtest.Check(t, syscall.Mount(other.Dir, nested, "", syscall.MS_BIND, ""))
	content := cut(t, data(pgdata), snap.Path{Role: snap.Nested, Path: nested})[0]
	if found := names(t, content); !slices.Contains(found, "base/5/1259") || !slices.Contains(found, "zzz/last") {
		t.Errorf("the snapshot holds %q", found)
	}
}

// TestControlFileLast stops the driver as it opens pg_control: by then all the
// rest of the copy is there, whole.
func TestControlFileLast(t *testing.T) {
	_, top := newFileSystem(t, "ext4", 200)
	pgdata := filepath.Join(top.Dir, "data")
	for _, dir := range []string{"base/1", "base/5", "global", "pg_xact", "zzz/below"} {
		for _, name := range []string{"a", "b", "zz"} {
			put(t, pgdata, dir+"/"+name)
		}
		pgtest.Check(t, os.WriteFile(filepath.Join(pgdata, dir, "large"), make([]byte, 8<<20), 0o600))
	}
	want := names(t, pgdata)
	control := filepath.Join(pgdata, "global/pg_control")
	pgtest.Check(t, os.WriteFile(control, controlData(), 0o600))
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)
	content := beside.Of(volumes[0]).Content("pgsnap-1")

	opened := 0
	stop := onOpen(t, control, func() {
		opened++
		if found := names(t, content); !slices.Equal(found, want) {
			t.Errorf("when pg_control is opened the copy holds %q, not %q", found, want)
		}
		for _, name := range want {
			from, err := os.Stat(filepath.Join(pgdata, name))
			to, errTo := os.Stat(filepath.Join(content, name))
			if err != nil || errTo != nil || from.Mode().IsRegular() && from.Size() != to.Size() {
				t.Errorf("when pg_control is opened %s is not whole: %v %v", name, err, errTo)
			}
		}
	})
	_, err = reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	stop()
	pgtest.Check(t, err)
	if opened == 0 {
		t.Error("pg_control was not opened")
	}
	copied, err := os.ReadFile(filepath.Join(content, "global/pg_control"))
	if err != nil || string(copied) != string(controlData()) {
		t.Errorf("the copied pg_control is not the original: %v", err)
	}
}

// TestControlFileTorn reads pg_control while it is being written, and one that
// is damaged for good.
func TestControlFileTorn(t *testing.T) {
	top := t.TempDir()
	pgdata := filepath.Join(top, "data")
	put(t, pgdata, "PG_VERSION", "global/pg_control")
	control := filepath.Join(pgdata, "global/pg_control")
	volumes, err := reflink.Driver{}.Resolve(t.Context(), []snap.Path{data(pgdata)})
	pgtest.Check(t, err)

	pgtest.Check(t, os.Chmod(control, 0o640))
	torn := controlData()
	torn[100]++
	pgtest.Check(t, os.WriteFile(control, torn, 0o600))
	_, err = reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	if err == nil || !strings.Contains(err.Error(), control) {
		t.Errorf("pg_control is damaged, and the error is %v", err)
	}
	if found := names(t, top); slices.Contains(found, beside.Folder+"/") {
		t.Errorf("after the failure there are %q", found)
	}

	written := make(chan error)
	time.AfterFunc(25*time.Millisecond, func() { written <- os.WriteFile(control, controlData(), 0o600) })
	set, err := reflink.Driver{}.Snapshot(t.Context(), "pgsnap-1", volumes, nil)
	pgtest.Check(t, <-written)
	pgtest.Check(t, err)
	copied := filepath.Join(set.Snapshots[0].Directory, "global/pg_control")
	content, err := os.ReadFile(copied)
	if err != nil || string(content) != string(controlData()) {
		t.Errorf("the copied pg_control is not the original: %v", err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode of the copied pg_control is %v, %v", info.Mode(), err)
	}
}
