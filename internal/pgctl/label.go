package pgctl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pgsnap/internal/wal"
)

// MaxLabel is the longest backup label that pgsnap takes, in bytes; the server
// refuses one of more than 1024 (MAXPGPATH).
const MaxLabel = 1000

// CheckLabel tells whether a text may be a backup's label. The server accepts
// line breaks, which then forge lines of backup_label; pgsnap does not.
func CheckLabel(label string) error {
	switch {
	case label == "":
		return errors.New("the label is empty")
	case len(label) > MaxLabel:
		return fmt.Errorf("the label has %d bytes; %d are allowed", len(label), MaxLabel)
	case !utf8.ValidString(label):
		return errors.New("the label is not valid UTF-8")
	}
	for _, r := range label {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("the label holds %q; only printable characters are allowed", r)
		}
	}
	return nil
}

// BackupLabel is what a backup_label file says (read_backup_label in
// xlogrecovery.c; build_backup_content in xlogbackup.c). pgsnap never writes
// one: it keeps the server's own bytes.
type BackupLabel struct {
	Start      wal.LSN
	Segment    string // the segment file that holds Start
	Checkpoint wal.LSN
	Method     string // pg_start_backup or streamed; from 9.1
	From       string // master, standby, or from 14 primary; from 9.2
	StartTime  string
	Label      string
	Timeline   uint32 // from the line START TIMELINE (11 and later), else from Segment
	// IncrementalFrom is true where the label is of an incremental backup (17
	// and later), which is nothing that a server can start from.
	IncrementalFrom bool
}

// ParseBackupLabel reads a backup_label as strictly as the server does, and
// refuses what the server would.
func ParseBackupLabel(data []byte) (BackupLabel, error) {
	var label BackupLabel
	text := string(data)
	if !strings.HasSuffix(text, "\n") {
		return label, errors.New("backup_label: its last line is not complete")
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 {
		return label, errors.New("backup_label: it has fewer than two lines")
	}
	if err := label.parseStart(lines[0]); err != nil {
		return label, err
	}
	checkpoint, found := strings.CutPrefix(lines[1], "CHECKPOINT LOCATION: ")
	if !found {
		return label, fmt.Errorf("backup_label: line 2 is %q, not the checkpoint's location", lines[1])
	}
	var err error
	if label.Checkpoint, err = wal.ParseLSN(checkpoint); err != nil {
		return label, fmt.Errorf("backup_label: line 2: %w", err)
	}
	seen := map[string]bool{}
	for number, line := range lines[2:] {
		key, err := label.parseDetail(line)
		if err == nil && seen[key] { // one of the two was forged by a line break in the label
			err = fmt.Errorf("%s is there twice", key)
		}
		if err != nil {
			return label, fmt.Errorf("backup_label: line %d: %w", number+3, err)
		}
		seen[key] = true
	}
	return label, nil
}

func (l *BackupLabel) parseStart(line string) error {
	rest, found := strings.CutPrefix(line, "START WAL LOCATION: ")
	location, file, hasFile := strings.Cut(rest, " (file ")
	segment, closed := strings.CutSuffix(file, ")")
	if !found || !hasFile || !closed || !wal.IsSegmentName(segment) {
		return fmt.Errorf("backup_label: line 1 is %q, not the start's WAL location", line)
	}
	start, err := wal.ParseLSN(location)
	if err != nil {
		return fmt.Errorf("backup_label: line 1: %w", err)
	}
	timeline, err := strconv.ParseUint(segment[:8], 16, 32)
	if err != nil || timeline == 0 {
		return fmt.Errorf("backup_label: line 1: segment %s is on no timeline", segment)
	}
	l.Start, l.Segment, l.Timeline = start, segment, uint32(timeline)
	return nil
}

func (l *BackupLabel) parseDetail(line string) (key string, err error) {
	key, value, found := strings.Cut(line, ": ")
	if !found {
		return "", fmt.Errorf("%q is no line of a label", line)
	}
	switch key {
	case "BACKUP METHOD":
		l.Method = value
	case "BACKUP FROM":
		l.From = value
	case "START TIME":
		l.StartTime = value
	case "LABEL":
		l.Label = value
	case "START TIMELINE":
		timeline, err := strconv.ParseUint(value, 10, 32)
		if err != nil || uint32(timeline) != l.Timeline {
			return "", fmt.Errorf("timeline %s is not that of segment %s", value, l.Segment)
		}
	case "INCREMENTAL FROM LSN", "INCREMENTAL FROM TLI":
		l.IncrementalFrom = true
	default:
		return "", fmt.Errorf("%q is no line of a label", line)
	}
	return key, nil
}

// Matches tells whether the label is that of a backup which began at start.
func (l BackupLabel) Matches(start wal.LSN) error {
	switch {
	case l.Start != start:
		return fmt.Errorf("backup_label begins at %s, but the server said %s", l.Start, start)
	case l.IncrementalFrom:
		return errors.New("backup_label is of an incremental backup")
	}
	return nil
}

// DefaultLabel is the label of a backup whose taker gave none.
func DefaultLabel(id string, at time.Time) string {
	return fmt.Sprintf("pgsnap %s %s", id, at.UTC().Format(time.RFC3339))
}
