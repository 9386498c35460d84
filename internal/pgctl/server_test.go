package pgctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgsnap/internal/pgtest"
)

// TestServers runs every test that must hold on every version on one server of
// each: making and starting one takes longer than all of them.
func TestServers(t *testing.T) {
	pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
		t.Parallel()
		cluster, err := pgtest.New(t).NewCluster(t.Context(), server, pgtest.Options{FreshIdentity: server.Name == "18", Settings: hostileSettings(server)})
		pgtest.Check(t, err)
		run := func(name string, test func(*testing.T, *pgtest.Cluster)) {
			t.Run(name, func(t *testing.T) { test(t, cluster) })
		}
		run("control file", testControlFile)
		run("directories", testTransientDirectories)
		pgtest.Check(t, os.WriteFile(filepath.Join(cluster.DataDir, "included.conf"), []byte("work_mem = '5MB'\n"), 0o644))
		pgtest.Check(t, cluster.Start(t.Context()))
		run("postmaster", testPostmaster)
		makeOddTablespaces(t, cluster)
		run("facts", testFacts)
		run("timeouts", testTimeouts)
		run("non-exclusive", testNonExclusive)
		run("lost session", testLostSession)
		run("cancelled start", testCancelledStart)
		if server.Major < 15 {
			run("exclusive", testExclusive)
			run("exclusive, cancelled start", testExclusiveCancelledStart)
			run("exclusive, lost session", testExclusiveLostSession)
			run("exclusive, foreign", testExclusiveForeign)
		} else {
			run("no exclusive", testNoExclusive)
		}
		if server.Major == 18 { // what is pgsnap's own, whatever the version
			run("watch", testWatch)
			run("other backend", testOtherBackend)
			run("weak user", testWeakUser)
		}
		pgtest.Check(t, cluster.Configure(map[string]string{"max_replication_slots": "0", "max_wal_senders": "0"}))
		pgtest.Check(t, cluster.Restart(t.Context(), pgtest.Fast))
		run("no slots", testNoSlots)
		pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Immediate))
		run("stopped", testStopped)
	})
}

// hostileSettings are what an administrator may have set against idle sessions.
func hostileSettings(server pgtest.Server) map[string]string {
	settings := map[string]string{
		"statement_timeout": "1min", "lock_timeout": "1min", "idle_in_transaction_session_timeout": "1min",
		"include": "included.conf", "default_transaction_read_only": "on", "checkpoint_timeout": "1h", "checkpoint_completion_target": "0.9",
	}
	if server.Major >= 14 {
		settings["idle_session_timeout"] = "1min"
	}
	if server.Major >= 17 {
		settings["transaction_timeout"] = "1min"
	}
	return settings
}

// makeOddTablespaces makes tablespaces in directories with names that a map must
// escape. A backslash at the end is what 13 and earlier can't read back.
func makeOddTablespaces(t *testing.T, cluster *pgtest.Cluster) {
	t.Helper()
	names := []string{"plain", "two  words ", "line\nfeed", "return\rto", `back\slash`, "back\\\nand feed", "tab\there", "é"}
	if cluster.Server.Major >= 14 {
		names = append(names, `ends\`)
	}
	for i, name := range names {
		dir := filepath.Join(filepath.Dir(cluster.DataDir), name)
		mkdirOwned(t, dir)
		write(t, cluster, fmt.Sprintf("CREATE TABLESPACE odd%d LOCATION '%s'", i, dir))
	}
	// Only tests have such ones: a plain directory in pg_tblspc, and not in the map.
	write(t, cluster, "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE inplace LOCATION ''")
}

// write runs SQL statements one by one, although transactions are read-only by
// default here.
func write(t *testing.T, cluster *pgtest.Cluster, statements ...string) {
	t.Helper()
	conn := pgtest.Connect(t, cluster)
	for _, statement := range append([]string{"SET default_transaction_read_only = off; SET escape_string_warning = off"}, statements...) {
		_, err := conn.Exec(t.Context(), statement)
		pgtest.Check(t, err)
	}
	pgtest.Check(t, conn.Close(t.Context()))
}

func connect(t *testing.T, cluster *pgtest.Cluster) *Server {
	t.Helper()
	server, err := Connect(t.Context(), cluster.DSN())
	pgtest.Check(t, err)
	t.Cleanup(server.Close)
	return server
}

// ask runs SQL on pgsnap's own session.
func ask(t *testing.T, server *Server, sql string) string {
	t.Helper()
	rows, err := server.rows(t.Context(), sql)
	pgtest.Check(t, err)
	if len(rows) == 0 {
		return ""
	}
	return strings.Join(rows[0], "|")
}

// testFacts compares each fact with what the server says in another way.
func testFacts(t *testing.T, cluster *pgtest.Cluster) {
	write(t, cluster, "ALTER SYSTEM SET work_mem = '6MB'")
	server := connect(t, cluster)
	facts := server.Facts
	program, err := filepath.EvalSymlinks(cluster.Server.BinDir)
	pgtest.Check(t, err)
	control, err := ReadControlFile(cluster.DataDir)
	pgtest.Check(t, err)
	query := func(sql string) string { return pgtest.Query(t, cluster, sql) }
	for what, pair := range map[string][2]string{
		"version":           {strconv.Itoa(facts.Version), query("SHOW server_version_num")},
		"major":             {strconv.Itoa(facts.Major()), strconv.Itoa(cluster.Server.Major)},
		"version text":      {facts.VersionText, query("SHOW server_version")},
		"system identifier": {strconv.FormatUint(facts.SystemIdentifier, 10), strconv.FormatUint(control.SystemIdentifier, 10)},
		"in recovery":       {strconv.FormatBool(facts.InRecovery), "false"},
		"segment size":      {strconv.FormatUint(facts.WALSegmentSize, 10), query("SELECT pg_size_bytes(current_setting('wal_segment_size'))")},
		"data directory":    {facts.DataDirectory, query("SHOW data_directory")},
		"programs":          {facts.BinDirectory, program},
		"owner":             {fmt.Sprint(facts.OwnerUID, " ", facts.OwnerGID), ownerOf(t, cluster.DataDir)},
		"settings":          {fmt.Sprint(len(facts.Settings)), query("SELECT count(*) FROM pg_settings WHERE name = ANY ('{" + strings.Join(restoredSettings, ",") + "}')")},
		"tablespaces":       {fmt.Sprint(len(facts.Tablespaces)), query("SELECT count(*) - 2 FROM pg_tablespace")},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	for name, setting := range facts.Settings {
		if want := query("SELECT setting FROM pg_settings WHERE name = '" + name + "'"); setting != want {
			t.Errorf("%s is %q, want %q", name, setting, want)
		}
	}
	for _, name := range []string{"port", "config_file", "archive_mode", "wal_level", "full_page_writes", "max_replication_slots"} {
		if facts.Settings[name] == "" {
			t.Errorf("%s is not known", name)
		}
	}
	for _, tablespace := range facts.Tablespaces {
		want := query(fmt.Sprintf("SELECT spcname || ' ' || pg_tablespace_location(oid) FROM pg_tablespace WHERE oid = %d", tablespace.OID))
		if got := tablespace.Name + " " + tablespace.Location; got != want || tablespace.InPlace() != (tablespace.Name == "inplace") {
			t.Errorf("tablespace %q, want %q", got, want)
		}
	}
	for _, name := range []string{"postgresql.conf", "included.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"} {
		if path := filepath.Join(cluster.DataDir, name); !slices.Contains(facts.ConfigFiles, path) {
			t.Errorf("%s is not among the configuration files %q", path, facts.ConfigFiles)
		}
	}
}

// testTimeouts: whatever the server's settings, nothing ends an idle session.
func testTimeouts(t *testing.T, cluster *pgtest.Cluster) {
	server := connect(t, cluster)
	rows, err := server.rows(t.Context(), `SELECT name, setting FROM pg_settings
		WHERE name ~ '_timeout$' AND context = 'user' AND name !~ '^(tcp_|wal_sender_)' ORDER BY name`)
	pgtest.Check(t, err)
	var names []string
	for _, row := range rows {
		names = append(names, row[0])
		if row[1] != "0" {
			t.Errorf("%s is %s", row[0], row[1])
		}
		if got := pgtest.Query(t, cluster, "SHOW "+row[0]); got != "1min" {
			t.Errorf("elsewhere %s is %s, so the test proves nothing", row[0], got)
		}
	}
	want := []string{"idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"}
	if cluster.Server.Major >= 14 {
		want = append(want, "idle_session_timeout")
	}
	if cluster.Server.Major >= 17 {
		want = append(want, "transaction_timeout")
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the server has timeouts %q, and the test knows %q", names, want)
	}
	if got := ask(t, server, "SHOW transaction_read_only"); got != "off" {
		t.Errorf("transaction_read_only is %s", got)
	}
	if got := ask(t, server, "SHOW application_name"); got != "pgsnap" {
		t.Errorf("application_name is %s", got)
	}
}

// eventuallyNone waits until a query counts nothing.
func eventuallyNone(t *testing.T, cluster *pgtest.Cluster, what, counting string) {
	t.Helper()
	pgtest.Eventually(t, 10*time.Second, func() error {
		count, err := cluster.Query(context.Background(), counting)
		if err == nil && count != "0" {
			err = fmt.Errorf("%s %s", count, what)
		}
		return err
	})
}
