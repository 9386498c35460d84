package pgctl

import (
	"slices"
	"strings"
)

// The directories whose content, and the files which, pg_basebackup leaves out
// of a copy (excludeDirContents, excludeFiles and noChecksumFiles in
// basebackup.c, over all versions from 10), because they are only of use to the
// server that wrote them.
var (
	transientDirectories = []string{
		"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots",
		"pg_stat_tmp", "pg_subtrans",
	}
	transientFiles = []string{
		"backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old",
		"backup_manifest", "current_logfiles.tmp", "postgresql.auto.conf.tmp",
		"postmaster.opts", "postmaster.pid",
	}
)

// TransientContent tells whether a directory, named by its path below the data
// directory, is kept but its content is not. The segments of pg_wal are added
// anew from those that the backup captured.
func TransientContent(relative string) bool {
	return slices.Contains(transientDirectories, relative) ||
		relative == "pg_wal" || relative == "pg_wal/archive_status" || relative == "pg_wal/summaries"
}

// TransientFile tells whether a file or directory, named by its path below the
// data directory or a tablespace, is no part of a copy at all.
func TransientFile(relative string) bool {
	name := relative[strings.LastIndexByte(relative, '/')+1:]
	return slices.Contains(transientFiles, relative) ||
		strings.HasPrefix(name, "pgsql_tmp") || strings.HasPrefix(name, "pg_internal.init")
}
