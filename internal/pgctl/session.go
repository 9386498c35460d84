package pgctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pgsnap/internal/fault"
	"pgsnap/internal/wal"
)

// Mode is how a server is put into backup mode.
type Mode string

const (
	// Auto is non-exclusive wherever the server has it.
	Auto Mode = "auto"
	// NonExclusive lets several backups run at once; it ends with the session.
	NonExclusive Mode = "non-exclusive"
	// Exclusive is the way before 9.6, gone in 15: one backup at a time, its
	// label a file in the data directory. It outlives the session.
	Exclusive Mode = "exclusive"
)

const (
	heartbeatEvery = 5 * time.Second
	// stopTimeout bounds the end of backup mode: a stop that does not wait for
	// the archive writes one record and switches the segment.
	stopTimeout = 5 * time.Minute
	stopTries   = 5
	labelFile   = "backup_label"
	mapFile     = "tablespace_map"
)

// BackupOptions are how a backup session begins.
type BackupOptions struct {
	Label string
	Mode  Mode
	// Fast asks for an immediate checkpoint instead of one spread over minutes.
	Fast bool
	// Slot is the name of the temporary replication slot that keeps the WAL.
	Slot string
}

// Backup is a server in backup mode.
type Backup struct {
	Mode  Mode
	Start wal.LSN
	// Files are known at once in exclusive mode, and only after Stop otherwise.
	Files BackupFiles
	// Warning says why the WAL is not pinned by a slot, if it is not.
	Warning string

	server    *Server
	pid       int
	done      bool
	heartbeat time.Duration // between two looks at the session; tests shorten it
}

// BackupFiles are the two files that the server gives for a backup, to the byte.
type BackupFiles struct {
	Label []byte
	// TablespaceMap is empty where there are no tablespaces.
	TablespaceMap []byte
}

// Resolve turns auto into the mode for this server, and refuses a mode that it
// does not have.
func (m Mode) Resolve(f Facts) (Mode, error) {
	switch {
	case m == "", m == Auto, m == NonExclusive:
		return NonExclusive, nil
	case m != Exclusive:
		return "", fault.New(fault.Usage, "mode is one of: auto, non-exclusive, exclusive", "there is no mode %q", m)
	case f.Major() >= 15:
		return "", fault.New(fault.Server, "use mode auto", "PostgreSQL %d has no exclusive mode; it was removed in 15", f.Major())
	case f.InRecovery:
		return "", fault.New(fault.Server, "use mode auto, or take the backup on the primary", "a standby has no exclusive mode")
	}
	return Exclusive, nil
}

// StartBackup puts the server into backup mode. Whatever fails, the server is
// not left in backup mode.
func (s *Server) StartBackup(ctx context.Context, options BackupOptions) (*Backup, error) {
	mode, err := options.Mode.Resolve(s.Facts)
	if err != nil {
		return nil, err
	}
	if err := CheckLabel(options.Label); err != nil {
		return nil, fault.Wrap(err, fault.Usage, "", "backup label")
	}
	backup := &Backup{Mode: mode, server: s, heartbeat: heartbeatEvery}
	if mode == Exclusive {
		if err := errors.Join(s.checkExclusive(), s.checkMayStop(ctx)); err != nil {
			return nil, err
		}
	}
	if err := s.row(ctx, "SELECT pg_backend_pid()", nil, &backup.pid); err != nil {
		return nil, fault.Wrap(err, fault.Server, "", "ask for the session's process id")
	}
	if backup.Warning, err = s.createSlot(ctx, options.Slot); err != nil {
		return nil, err
	}
	start := "SELECT pg_start_backup($1, $2, false)::text"
	switch {
	case mode == Exclusive:
		start = "SELECT pg_start_backup($1, $2, true)::text"
	case s.Facts.Major() >= 15:
		start = "SELECT pg_backup_start($1, $2)::text"
	}
	var lsn string
	if err := s.row(ctx, start, []any{options.Label, options.Fast}, &lsn); err != nil {
		return nil, fault.Wrap(err, fault.Server, startHint(err), "start the backup")
	}
	if backup.Start, err = wal.ParseLSN(lsn); err == nil && mode == Exclusive {
		backup.Files, err = s.readBackupFiles()
	}
	if err != nil {
		return nil, errors.Join(err, backup.Abort())
	}
	return backup, nil
}

func startHint(err error) string {
	switch {
	case hasCode(err, "42501"): // insufficient_privilege
		return grantHint
	case hasCode(err, "55000"): // object_not_in_prerequisite_state
		return "wal_level must be replica or logical"
	}
	return ""
}

// checkExclusive refuses to begin where somebody else's exclusive backup runs,
// or where the label of a dead one was left behind. The server itself can't tell
// the two apart: pg_is_in_backup() looks for the file (BackupInProgress in xlog.c).
func (s *Server) checkExclusive() error {
	path := filepath.Join(s.Facts.DataDirectory, labelFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	said := "which cannot be read as one"
	if label, err := ParseBackupLabel(data); err == nil {
		said = fmt.Sprintf("of a backup labelled %q, started at %s", label.Label, label.StartTime)
	}
	return fault.New(fault.Busy,
		"wait for that backup; if whoever began it is gone, end it with SELECT pg_stop_backup(), and if that says that none is in progress, rename the file",
		"an exclusive backup is in progress or was left behind: there is %s, %s", path, said)
}

// checkMayStop makes sure that who starts an exclusive backup may also stop it.
func (s *Server) checkMayStop(ctx context.Context) error {
	var may bool
	err := s.row(ctx, "SELECT has_function_privilege('pg_stop_backup(boolean, boolean)', 'EXECUTE')", nil, &may)
	if err == nil && !may {
		err = errors.New("permission denied for function pg_stop_backup(boolean, boolean)")
	}
	return fault.Wrap(err, fault.Server, grantHint, "stop an exclusive backup")
}

const grantHint = "grant the database user EXECUTE on the backup functions, or use a superuser"

// createSlot makes the temporary slot that keeps the WAL from now until the
// session ends. Where none can be had, the backup goes on: its WAL is checked to
// be whole when it is copied.
func (s *Server) createSlot(ctx context.Context, name string) (warning string, err error) {
	err = s.exec(ctx, "SELECT pg_create_physical_replication_slot("+quote(name)+", true, true)")
	switch {
	case err == nil:
		return "", nil
	case hasCode(err, "53400"), hasCode(err, "55000"), hasCode(err, "42501"):
		// configuration_limit_exceeded, object_not_in_prerequisite_state
		// (max_replication_slots = 0, wal_level = minimal), insufficient_privilege
		return fmt.Sprintf("no replication slot keeps the WAL meanwhile (%v)", err), nil
	}
	return "", fault.Wrap(err, fault.Server, "", "create the temporary replication slot %s", name)
}

// quote makes a string literal of a name that pgsnap made itself.
func quote(text string) string { return "'" + text + "'" }

// Watch keeps the session from being silent and cancels ctx's child, with the
// reason, as soon as the session is found lost. End it before Stop.
func (b *Backup) Watch(ctx context.Context) (watched context.Context, end func()) {
	watched, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		ticker := time.NewTicker(b.heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-ticker.C:
			}
			if err := b.checkSession(context.WithoutCancel(ctx)); err != nil {
				cancel(err)
				return
			}
		}
	}()
	return watched, func() {
		close(stopped)
		<-finished
		cancel(nil)
	}
}

// checkSession makes sure that this is still the backend that began the backup.
func (b *Backup) checkSession(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var pid int
	if err := b.server.row(ctx, "SELECT pg_backend_pid()", nil, &pid); err != nil {
		return fault.Wrap(err, fault.Server, "the server dropped the backup with its session; take it again", "the backup's session was lost")
	}
	if pid != b.pid {
		return fault.New(fault.Server, "let dsn name the server itself, not a connection pooler",
			"the backup began in backend %d, but this is backend %d", b.pid, pid)
	}
	return nil
}

// Stop ends backup mode without waiting for the archive, and returns where the
// backup ends and its files. A caller's cancellation does not reach it: a stop
// half done would lose the label.
func (b *Backup) Stop(ctx context.Context) (wal.LSN, BackupFiles, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for try := 1; ; try++ {
		lsn, files, err := b.stop(ctx)
		if try == stopTries || !hasCode(err, "57014") { // query_canceled
			return lsn, files, err
		}
	}
}

// stop is one try. A cancel request for an earlier statement, from a caller who
// was interrupted, may reach the server only during this one.
func (b *Backup) stop(ctx context.Context) (wal.LSN, BackupFiles, error) {
	check := b.checkSession
	if b.Mode == Exclusive { // which any session may stop, also somebody else's
		check = b.checkLabel
	}
	if err := check(ctx); err != nil {
		return 0, BackupFiles{}, err
	}
	stop := "SELECT lsn::text, coalesce(labelfile, ''), coalesce(spcmapfile, '') FROM pg_stop_backup(false, false)"
	switch {
	case b.Mode == Exclusive:
		stop = "SELECT lsn::text, coalesce(labelfile, ''), coalesce(spcmapfile, '') FROM pg_stop_backup(true, false)"
	case b.server.Facts.Major() >= 15:
		stop = "SELECT lsn::text, coalesce(labelfile, ''), coalesce(spcmapfile, '') FROM pg_backup_stop(false)"
	}
	var lsn, label, tablespaceMap string
	if err := b.server.row(ctx, stop, nil, &lsn, &label, &tablespaceMap); err != nil {
		return 0, BackupFiles{}, fault.Wrap(err, fault.Server, "see the server's log, and take it again", "stop the backup")
	}
	b.done = true
	if b.Mode != Exclusive { // there the server gives neither; they were read at the start
		b.Files = BackupFiles{Label: []byte(label), TablespaceMap: []byte(tablespaceMap)}
	}
	end, err := wal.ParseLSN(lsn)
	return end, b.Files, err
}

// checkLabel makes sure that the exclusive backup that is running is still this
// one: another may have been begun after somebody stopped it.
func (b *Backup) checkLabel(context.Context) error {
	if b.Files.Label == nil { // it was begun just now, and its label could not be read
		return nil
	}
	present, err := b.server.readBackupFiles()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(present.Label, b.Files.Label) {
		return errEnded
	}
	return err
}

var errEnded = fault.New(fault.Server, "take it again, and see that nothing else calls pg_stop_backup() or restarts the server meanwhile",
	"the exclusive backup was ended by somebody else")

// Abort leaves backup mode where it is still on. A non-exclusive backup ends
// with its session, which is closed; an exclusive one must be stopped, if need
// be over a new connection.
func (b *Backup) Abort() error {
	if b.done {
		return nil
	}
	if b.Mode != Exclusive {
		b.server.Close()
		return nil
	}
	_, _, err := b.Stop(context.Background())
	if err != nil && b.server.conn.IsClosed() {
		err = b.stopElsewhere()
	}
	if errors.Is(err, errEnded) {
		return nil
	}
	return fault.Wrap(err, fault.Server, "end it with: SELECT pg_stop_backup()", "the server may still be in exclusive backup mode")
}

// stopElsewhere stops an exclusive backup whose session was lost.
func (b *Backup) stopElsewhere() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	server, err := Connect(ctx, b.server.dsn)
	if err != nil {
		return err
	}
	defer server.Close()
	again := &Backup{Mode: Exclusive, Files: b.Files, server: server}
	_, _, err = again.Stop(ctx)
	return err
}

// readBackupFiles reads what the server wrote for an exclusive backup.
func (s *Server) readBackupFiles() (BackupFiles, error) {
	label, err := s.Facts.ReadFileAsOwner(filepath.Join(s.Facts.DataDirectory, labelFile))
	if err != nil {
		return BackupFiles{}, err
	}
	tablespaceMap, err := s.Facts.ReadFileAsOwner(filepath.Join(s.Facts.DataDirectory, mapFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return BackupFiles{Label: label, TablespaceMap: tablespaceMap}, err
}
