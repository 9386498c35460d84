package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// setting is one line of a configuration file.
type setting struct{ name, value string }

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
