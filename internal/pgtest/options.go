package pgtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Options says what kind of cluster is wanted. The zero value is the quickest: trust authentication, no data checksums, fsync off.
type Options struct {
	DataDir string // where; made if it is missing, otherwise empty. Default: in the lab
	WALDir  string // where pg_wal's symbolic link leads; none by default

	Checksums bool              // data checksums (initdb -k)
	Fsync     bool              // leave fsync on, as a snapshot below the file system needs, which sees only what was synced
	Auth      string            // method for local connections: "trust" (default), "peer", "scram-sha-256", …
	Password  string            // of the superuser postgres; needed by methods that ask
	Archive   bool              // archive_mode = on into Cluster.ArchiveDir
	Listen    bool              // listen on 127.0.0.1 too, not only on the Unix socket
	Settings  map[string]string // further settings for postgresql.conf; they win over those made here

	FreshIdentity bool     // a system identifier of its own, from a real initdb (seconds); clusters made without share theirs
	InitdbArgs    []string // further arguments of initdb, such as --wal-segsize=1 (11 and later)
}

// initdbArgs are the arguments that decide what a new cluster's files hold.
func (o Options) initdbArgs(server Server) []string {
	local := o.Auth
	if local == "" {
		local = "trust"
	}
	host := local
	if local == "peer" {
		host = "reject" // peer is for Unix sockets only
	}
	args := []string{"--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C",
		"--auth-local=" + local, "--auth-host=" + host}
	const checksumsByDefault = 18
	if o.Checksums {
		args = append(args, "--data-checksums")
	} else if server.Major >= checksumsByDefault {
		args = append(args, "--no-data-checksums")
	}
	return append(args, o.InitdbArgs...)
}

// settings are the lines for a new cluster's postgresql.conf.
func (o Options) settings(archiveDir string) string {
	all := map[string]string{
		"shared_buffers":        "32MB",
		"max_connections":       "50",
		"wal_level":             "replica",
		"max_wal_size":          "256MB",
		"min_wal_size":          "64MB",
		"max_wal_senders":       "10",
		"max_replication_slots": "10",
		"hot_standby":           "on",
		"log_line_prefix":       "%m [%p] ",
		"log_checkpoints":       "on",
		"logging_collector":     "off",
	}
	if !o.Fsync {
		all["fsync"] = "off"
	}
	if archiveDir != "" {
		all["archive_mode"] = "on"
		all["archive_command"] = fmt.Sprintf(`test ! -f "%[1]s/%%f" && cp "%%p" "%[1]s/%%f.part" && mv "%[1]s/%%f.part" "%[1]s/%%f"`,
			archiveDir)
	}
	maps.Copy(all, o.Settings)
	return formatSettings(all)
}

func formatSettings(settings map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(settings[name])
		fmt.Fprintf(&text, "%s = '%s'\n", name, value)
	}
	return text.String()
}
