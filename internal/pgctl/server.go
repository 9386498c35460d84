// Package pgctl is everything that pgsnap says to PostgreSQL: facts about a
// server, the backup session in each mode, the files of a backup, and the start
// of a restored copy.
package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgsnap/internal/fault"
)

// MinimumVersion is the oldest server that pgsnap takes, as server_version_num.
const MinimumVersion = 100000

// Server is one session with a running server on this host.
type Server struct {
	Facts Facts
	// Warnings are what could not be found out, for want of a privilege.
	Warnings []string
	dsn      string
	conn     *pgx.Conn
	mu       sync.Mutex // the heartbeat speaks on the same connection
}

// Facts is what a server says of itself, once, when pgsnap connects.
type Facts struct {
	// Version is server_version_num: 150018 for 15.18.
	Version int `json:"version_num"`
	// VersionText is server_version, with the packager's remarks.
	VersionText      string `json:"version"`
	SystemIdentifier uint64 `json:"system_identifier,string"`
	InRecovery       bool   `json:"in_recovery"`
	// WALSegmentSize is in bytes.
	WALSegmentSize uint64 `json:"wal_segment_size"`
	// DataDirectory is an absolute path as the server gives it.
	DataDirectory string `json:"data_directory"`
	// BinDirectory holds the server's programs; empty where it could not be seen.
	BinDirectory string `json:"bin_directory,omitempty"`
	// Owner is the numeric user and group of the data directory.
	OwnerUID int `json:"owner_uid"`
	OwnerGID int `json:"owner_gid"`
	// Settings are those that a restored copy must know; see restoredSettings.
	Settings map[string]string `json:"settings"`
	// ConfigFiles are all files that the configuration was read from.
	ConfigFiles []string `json:"config_files"`
	// Tablespaces are all but pg_default and pg_global.
	Tablespaces []Tablespace `json:"tablespaces"`
}

// Major is the major version: 15 for 15.18.
func (f Facts) Major() int { return f.Version / 10000 }

// Tablespace is a tablespace outside the default ones.
type Tablespace struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name"`
	// Location is the link's target as the server gives it; for an in-place
	// tablespace (allow_in_place_tablespaces) a path relative to the data directory.
	Location string `json:"location"`
}

// InPlace tells whether the tablespace is a plain directory in pg_tblspc.
func (t Tablespace) InPlace() bool { return !filepath.IsAbs(t.Location) }

// restoredSettings are the settings kept with a backup because a restored copy
// must change them, so as not to meet the original, or must keep them.
var restoredSettings = []string{
	"config_file", "hba_file", "ident_file", "external_pid_file",
	"port", "listen_addresses", "unix_socket_directories",
	"archive_mode", "log_directory", "stats_temp_directory", "hot_standby", "wal_level",
	"max_replication_slots", "data_checksums", "full_page_writes",
}

// Connect opens a session with the server that dsn names and reads its facts.
// The server must run on this host: its data directory must be here.
func Connect(ctx context.Context, dsn string) (*Server, error) {
	conn, err := open(ctx, dsn)
	if err != nil {
		return nil, err
	}
	server := &Server{dsn: dsn, conn: conn}
	if err := server.prepare(ctx); err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

func (s *Server) prepare(ctx context.Context) error {
	if err := s.readFacts(ctx); err != nil {
		return err
	}
	if err := s.switchTimeoutsOff(ctx); err != nil {
		return fault.Wrap(err, fault.Server, "", "prepare the session")
	}
	return s.checkHost()
}

// Close ends the session: a backup that is not stopped is dropped by the
// server, and so is the temporary slot.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close(ctx) // there is nobody left to tell
}

func (s *Server) row(ctx context.Context, sql string, args []any, into ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn.QueryRow(ctx, sql, args...).Scan(into...)
}

func (s *Server) exec(ctx context.Context, sql string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Exec(ctx, sql)
	return err
}

// rows runs a query whose columns are all text.
func (s *Server) rows(ctx context.Context, sql string, args ...any) ([][]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(row pgx.CollectableRow) ([]string, error) {
		texts := make([]string, len(row.FieldDescriptions()))
		into := make([]any, len(texts))
		for i := range texts {
			into[i] = &texts[i]
		}
		return texts, row.Scan(into...)
	})
}

func (s *Server) readFacts(ctx context.Context) error {
	f := &s.Facts
	if err := s.row(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version')`, nil,
		&f.Version, &f.VersionText); err != nil {
		return fault.Wrap(err, fault.Server, "", "read the server's version")
	}
	if f.Version < MinimumVersion {
		return fault.New(fault.Server, "pgsnap takes PostgreSQL 10 and later", "the server is PostgreSQL %s", f.VersionText)
	}
	var system string
	err := s.row(ctx, `SELECT pg_is_in_recovery(), s.system_identifier::text, i.bytes_per_wal_segment::bigint,
			current_setting('data_directory')
		FROM pg_control_system() s, pg_control_init() i`, nil,
		&f.InRecovery, &system, &f.WALSegmentSize, &f.DataDirectory)
	if err != nil {
		hint := ""
		if hasCode(err, "42501") { // insufficient_privilege
			hint = "the database user must be a superuser or a member of pg_read_all_settings"
		}
		return fault.Wrap(err, fault.Server, hint, "read the server's facts")
	}
	// The server's identifier is a bigint; a large one comes as negative.
	if signed, err := strconv.ParseInt(system, 10, 64); err == nil {
		f.SystemIdentifier = uint64(signed)
	} else if f.SystemIdentifier, err = strconv.ParseUint(system, 10, 64); err != nil {
		return fmt.Errorf("system identifier %q: %w", system, err)
	}
	if f.Settings, err = s.settings(ctx); err != nil {
		return fault.Wrap(err, fault.Server, "", "read the server's settings")
	}
	if f.Tablespaces, err = s.ReadTablespaces(ctx); err != nil {
		return err
	}
	f.ConfigFiles, err = s.configFiles(ctx)
	return err
}

func (s *Server) settings(ctx context.Context) (map[string]string, error) {
	rows, err := s.rows(ctx, `SELECT name, coalesce(setting, '') FROM pg_settings WHERE name = ANY ($1::text[])`, restoredSettings)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, row := range rows {
		settings[row[0]] = row[1]
	}
	return settings, nil
}

// ReadTablespaces asks the server for its tablespaces of this moment.
func (s *Server) ReadTablespaces(ctx context.Context) ([]Tablespace, error) {
	rows, err := s.rows(ctx, `SELECT oid::text, spcname::text, pg_tablespace_location(oid)
		FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`)
	if err != nil {
		return nil, fault.Wrap(err, fault.Server, "", "read the tablespaces")
	}
	tablespaces := []Tablespace{}
	for _, row := range rows {
		oid, err := strconv.ParseUint(row[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("tablespace %s has OID %q: %w", row[1], row[0], err)
		}
		tablespaces = append(tablespaces, Tablespace{OID: uint32(oid), Name: row[1], Location: row[2]})
	}
	return tablespaces, nil
}

// configFiles lists every file that settings and access rules are read from. The
// views that tell of included ones are a superuser's unless granted.
func (s *Server) configFiles(ctx context.Context) ([]string, error) {
	queries := []string{
		`SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file') AND setting <> '' ORDER BY name`,
		`SELECT DISTINCT sourcefile FROM pg_file_settings WHERE sourcefile IS NOT NULL ORDER BY 1`,
	}
	if s.Facts.Major() >= 16 { // file_name came with include in the access files
		queries = append(queries,
			`SELECT DISTINCT file_name FROM pg_hba_file_rules WHERE file_name IS NOT NULL ORDER BY 1`,
			`SELECT DISTINCT file_name FROM pg_ident_file_mappings WHERE file_name IS NOT NULL ORDER BY 1`)
	}
	files := []string{}
	for _, query := range queries {
		rows, err := s.rows(ctx, query)
		if hasCode(err, "42501") { // insufficient_privilege
			s.Warnings = append(s.Warnings, fmt.Sprintf("files that the configuration includes are saved only as far as they are known: %v", err))
			continue
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.Server, "", "read the names of the configuration files")
		}
		for _, row := range rows {
			if !slices.Contains(files, row[0]) {
				files = append(files, row[0])
			}
		}
	}
	return files, nil
}

// checkHost makes sure that the data directory seen here is the server's, and
// notes its owner and the programs it runs from.
func (s *Server) checkHost() error {
	dir := s.Facts.DataDirectory
	control, err := ReadControlFile(dir)
	if errors.Is(err, os.ErrPermission) {
		return fault.Wrap(err, fault.Storage, "run pgsnap as root or as the server's own user", "read the data directory")
	}
	if err != nil {
		return fault.Wrap(err, fault.Server, "pgsnap must run on the server's host; is dsn that of another?", "the server's data directory is not to be found here")
	}
	if control.SystemIdentifier != s.Facts.SystemIdentifier {
		return fault.New(fault.Server, "pgsnap must run on the server's host; is dsn that of another?",
			"%s is of another cluster: system identifier %d, but the server's is %d", dir, control.SystemIdentifier, s.Facts.SystemIdentifier)
	}
	if s.Facts.OwnerUID, s.Facts.OwnerGID, err = Owner(dir); err != nil {
		return err
	}
	if postmaster, err := ReadPostmasterPID(dir); err == nil {
		s.Facts.BinDirectory = postmaster.BinDirectory()
	}
	return nil
}

// switchTimeoutsOff makes the session one that may stay open and silent.
func (s *Server) switchTimeoutsOff(ctx context.Context) error {
	timeouts := []struct {
		name  string
		since int // major version
	}{
		{"statement_timeout", 0},
		{"lock_timeout", 0},
		{"idle_in_transaction_session_timeout", 0},
		{"idle_session_timeout", 14},
		{"transaction_timeout", 17},
	}
	sql := "SET default_transaction_read_only = off"
	for _, timeout := range timeouts {
		if s.Facts.Major() >= timeout.since {
			sql += "; SET " + timeout.name + " = 0"
		}
	}
	return s.exec(ctx, sql)
}

func hasCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}
