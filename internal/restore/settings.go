package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

const (
	// maxSocketPath is what fits into sockaddr_un (unix(7)).
	maxSocketPath = 107
	portsTried    = 1000
)

// setting is one line of a configuration file.
type setting struct{ name, value string }

// planServer decides on the copy's port and socket, and that its user can reach
// it.
func (r *restoring) planServer() error {
	server, destination := r.backup.Server, r.copy.Destination
	r.result.Destination = destination
	r.result.DataDirectory = r.layout.data
	r.result.Log = filepath.Join(destination, logName)
	port, err := strconv.Atoi(server.Settings["port"])
	if err != nil {
		return fmt.Errorf("backup %s: port %q: %w", r.backup.ID, server.Settings["port"], err)
	}
	switch {
	case r.options.Port != 0:
		port = r.options.Port
	case r.options.Isolate:
		if port, err = freePort(port); err != nil {
			return err
		}
	}
	r.result.Port = port
	r.result.SocketDirectory, _, _ = strings.Cut(server.Settings["unix_socket_directories"], ",")
	if r.options.Isolate {
		if r.result.SocketDirectory, err = socketDirectory(destination); err != nil {
			return err
		}
	}
	if r.options.Start && r.options.Port != 0 {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		return checkReachable(destination, server.OwnerUID, server.OwnerGID)
	}
	return nil
}

// freePort is the first port from the original's on that nothing listens on.
func freePort(from int) (int, error) {
	for port := from; port < from+portsTried && port < 1<<16; port++ {
		if checkPort(port) == nil && !exists(fmt.Sprintf("/tmp/.s.PGSQL.%d", port)) && !exists(fmt.Sprintf("/var/run/postgresql/.s.PGSQL.%d", port)) {
			return port, nil
		}
	}
	return 0, fault.New(fault.Server, "name a free one with --port", "no port from %d on is free", from)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func checkPort(port int) error {
	if port < 1 || port > 1<<16-1 {
		return fault.New(fault.Usage, "ports are 1 to 65535", "there is no port %d", port)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fault.Wrap(err, fault.Busy, "name a free one with --port, or leave it out", "port %d", port)
	}
	return listener.Close()
}

func socketDirectory(destination string) (string, error) {
	dir := filepath.Join(destination, socketName)
	if len(dir)+len("/.s.PGSQL.65535.lock") > maxSocketPath {
		return "", fault.New(fault.Usage, fmt.Sprintf("choose a destination of at most %d bytes", maxSocketPath-len("/socket/.s.PGSQL.65535.lock")),
			"the path of the copy's unix socket below %s is too long", destination)
	}
	return dir, nil
}

// putConfiguration makes the copy's server start from the copy alone: saved
// files put back, every path that leads elsewhere overridden, recovery to the
// backup's end, and, isolated, nothing that meets the original.
func (r *restoring) putConfiguration(d dataDirectory) error {
	if err := r.putSavedFiles(d); err != nil {
		return err
	}
	if err := r.putMainFile(d); err != nil {
		return err
	}
	recovery, isRecoveryConf := r.recoverySettings()
	settings := r.pathSettings()
	if r.options.Isolate {
		settings = append(settings, r.isolation()...)
	} else if r.options.Port != 0 {
		settings = append(settings, setting{"port", strconv.Itoa(r.options.Port)})
	}
	if isRecoveryConf {
		if err := d.write("recovery.conf", []byte(format(recovery))); err != nil {
			return err
		}
	} else {
		settings = append(recovery, settings...)
		// recovery.conf left from an older version is fatal to a newer one
		for _, name := range []string{"standby.signal", "recovery.conf"} {
			if err := d.root.RemoveAll(name); err != nil {
				return err
			}
		}
		if err := d.write("recovery.signal", nil); err != nil {
			return err
		}
	}
	return d.appendTo("postgresql.auto.conf", r.heading()+format(settings))
}

func (r *restoring) heading() string {
	return fmt.Sprintf("\n# Written by pgsnap restore, from backup %s; later lines override earlier ones.\n", r.backup.ID)
}

// appendTo adds text to a file of the data directory, which it makes if need be.
// A link there is replaced by what it leads to within the data directory only.
func (d dataDirectory) appendTo(name, text string) error {
	old, err := d.root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		old = nil // a link out of the copy
	}
	return d.write(name, append(old, text...))
}

// recoverySettings make recovery end where the backup ends: with the WAL that
// was captured, on a new timeline. A restore_command must be set, and one that
// finds nothing is right, since all WAL is in pg_wal already.
func (r *restoring) recoverySettings() (settings []setting, isRecoveryConf bool) {
	if r.backup.Server.Major() < 12 {
		return []setting{{"restore_command", "false"}}, true
	}
	return []setting{
		{"restore_command", "false"},
		{"recovery_target_timeline", "current"},
		{"recovery_target", ""}, {"recovery_target_time", ""}, {"recovery_target_xid", ""},
		{"recovery_target_name", ""}, {"recovery_target_lsn", ""},
		{"recovery_end_command", ""}, {"archive_cleanup_command", ""},
		{"primary_conninfo", ""}, {"primary_slot_name", ""},
	}, false
}

// pathSettings override what would lead the copy's server out of the copy.
func (r *restoring) pathSettings() []setting {
	original := r.backup.Server.Settings
	var settings []setting
	if original["external_pid_file"] != "" {
		settings = append(settings, setting{"external_pid_file", filepath.Join(r.copy.Destination, "server.pid")})
	}
	for _, name := range []string{"hba_file", "ident_file"} {
		if place := r.placeOf(original[name]); place != "" {
			settings = append(settings, setting{name, place})
		}
	}
	if filepath.IsAbs(original["log_directory"]) {
		settings = append(settings, setting{"log_directory", "log"})
	}
	if original["stats_temp_directory"] != "" { // gone in 15
		settings = append(settings, setting{"stats_temp_directory", "pg_stat_tmp"})
	}
	return settings
}

// isolation keeps the copy from pushing WAL into the original's archive, waiting
// for its standbys, pulling from its publishers, and standing on its port.
func (r *restoring) isolation() []setting {
	settings := []setting{
		{"port", strconv.Itoa(r.result.Port)},
		{"unix_socket_directories", `"` + strings.ReplaceAll(r.result.SocketDirectory, `"`, `""`) + `"`},
		{"archive_mode", "off"},
		{"synchronous_standby_names", ""},
		{"max_logical_replication_workers", "0"},
	}
	if r.backup.Server.Settings["listen_addresses"] != "" {
		settings = append(settings, setting{"listen_addresses", "localhost"})
	}
	return settings
}

// format writes settings as a configuration file has them (GUC_scanstr in
// guc-file.l reads the escapes).
func format(settings []setting) string {
	escape := strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`)
	var text strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&text, "%s = '%s'\n", s.name, escape.Replace(s.value))
	}
	return text.String()
}

// placeOf is where a configuration file of the original is in the copy, or ""
// where the copy has none.
func (r *restoring) placeOf(original string) string {
	data := r.backup.Server.DataDirectory
	if original == "" {
		return ""
	}
	for _, saved := range r.backup.ConfigFiles {
		if saved == original && !snap.IsBelow(original, data) {
			return r.outside(original)
		}
	}
	if relative, err := filepath.Rel(data, original); err == nil && filepath.IsLocal(relative) {
		return filepath.Join(r.layout.data, relative)
	}
	return ""
}

// putSavedFiles puts the saved configuration files back: those from outside the
// data directory below config/, under the path that they had, and those that were
// links in the data directory in the links' stead.
func (r *restoring) putSavedFiles(d dataDirectory) error {
	for _, path := range r.backup.ConfigFiles {
		content, err := r.Catalog.File(r.backup, filepath.Join(configName, path))
		if err != nil {
			return err
		}
		if relative, err := filepath.Rel(r.backup.Server.DataDirectory, path); err == nil && filepath.IsLocal(relative) {
			if err := d.write(relative, content); err != nil {
				return err
			}
			continue
		}
		if err := r.putOutside(d, path, content); err != nil {
			return err
		}
	}
	return nil
}

// putOutside writes a file below config/, with the directories to it and those
// that it includes, which may have held no file.
func (r *restoring) putOutside(d dataDirectory, path string, content []byte) error {
	if err := r.makeOutside(d, filepath.Dir(path)); err != nil {
		return err
	}
	for _, line := range includeLine.FindAllSubmatch(content, -1) {
		if strings.EqualFold(string(line[2]), "include_dir") {
			included := string(line[4])
			if !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(path), included)
			}
			if err := r.makeOutside(d, included); err != nil {
				return err
			}
		}
	}
	place := r.outside(path)
	if err := os.WriteFile(place, r.redirectIncludes(content), 0o600); err != nil {
		return err
	}
	return chown(place, d)
}

// outside is where a path from outside the data directory is kept in the copy.
func (r *restoring) outside(path string) string {
	return filepath.Join(r.copy.Destination, configName, path)
}

// makeOutside makes a directory below config/.
func (r *restoring) makeOutside(d dataDirectory, path string) error {
	place := r.outside(path)
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	for made := place; made != r.copy.Destination; made = filepath.Dir(made) {
		if err := chown(made, d); err != nil {
			return err
		}
	}
	return nil
}

// includeLine is a line that includes other files: what is before the path, the
// directive, and the path.
var includeLine = regexp.MustCompile(`(?mi)^(\s*(include|include_if_exists|include_dir)(\s*=?\s*)')([^'\n]*)`)

// redirectIncludes makes absolute includes lead to the saved files.
func (r *restoring) redirectIncludes(content []byte) []byte {
	return includeLine.ReplaceAllFunc(content, func(line []byte) []byte {
		parts := includeLine.FindSubmatch(line)
		included := string(parts[4])
		isDirectory := strings.EqualFold(string(parts[2]), "include_dir")
		if filepath.IsAbs(included) && (isDirectory || slices.Contains(r.backup.ConfigFiles, filepath.Clean(included))) {
			return append(slices.Clone(parts[1]), r.outside(included)...)
		}
		return line
	})
}

var dataDirectoryLine = regexp.MustCompile(`(?mi)^\s*data_directory\b`)

// putMainFile makes sure that the data directory has a postgresql.conf, and that
// no file says that the data directory is another, which would be the live one.
func (r *restoring) putMainFile(d dataDirectory) error {
	main := r.placeOf(r.backup.Server.Settings["config_file"])
	own := filepath.Join(r.layout.data, "postgresql.conf")
	override := r.heading() + format([]setting{{"data_directory", r.layout.data}})
	if main != "" && main != own {
		return d.write("postgresql.conf", []byte(r.heading()+format([]setting{{"include", main}})+override))
	}
	for _, path := range r.backup.Server.ConfigFiles {
		content, err := os.ReadFile(r.placeOf(path))
		if err != nil {
			continue // not of the copy; it says nothing to its server
		}
		if dataDirectoryLine.Match(content) {
			return d.appendTo("postgresql.conf", override)
		}
	}
	return nil
}
