package pgctl

import (
	"strings"
	"testing"
	"time"

	"pgsnap/internal/wal"
)

// labels are what the versions write, as far as they differ.
var labels = map[string]struct {
	text string
	want BackupLabel
}{
	"9.0": {
		"START WAL LOCATION: 0/2000020 (file 000000010000000000000002)\n" +
			"CHECKPOINT LOCATION: 0/2000020\n" +
			"START TIME: 2011-03-04 05:06:07 UTC\n" +
			"LABEL: nightly\n",
		BackupLabel{Start: 0x2000020, Segment: "000000010000000000000002", Checkpoint: 0x2000020,
			StartTime: "2011-03-04 05:06:07 UTC", Label: "nightly", Timeline: 1},
	},
	"10, exclusive": {
		"START WAL LOCATION: 16/B3000028 (file 0000001F00000016000000B3)\n" +
			"CHECKPOINT LOCATION: 16/B3000060\n" +
			"BACKUP METHOD: pg_start_backup\n" +
			"BACKUP FROM: master\n" +
			"START TIME: 2026-11-20 08:23:10 CET\n" +
			"LABEL: a label: with a colon\n",
		BackupLabel{Start: 0x16_B3000028, Segment: "0000001F00000016000000B3", Checkpoint: 0x16_B3000060, Method: "pg_start_backup", From: "master",
			StartTime: "2026-11-20 08:23:10 CET", Label: "a label: with a colon", Timeline: 31},
	},
	"11 to 13": {
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n" +
			"CHECKPOINT LOCATION: 0/2000060\n" +
			"BACKUP METHOD: streamed\n" +
			"BACKUP FROM: master\n" +
			"START TIME: 2026-11-20 08:23:12 UTC\n" +
			"LABEL: x\n" +
			"START TIMELINE: 1\n",
		BackupLabel{Start: 0x2000028, Segment: "000000010000000000000002", Checkpoint: 0x2000060, Method: "streamed", From: "master",
			StartTime: "2026-11-20 08:23:12 UTC", Label: "x", Timeline: 1},
	},
	"14 and later": {
		"START WAL LOCATION: 1/0 (file 0000000A0000000100000000)\n" +
			"CHECKPOINT LOCATION: 1/38\n" +
			"BACKUP METHOD: streamed\n" +
			"BACKUP FROM: primary\n" +
			"START TIME: 2026-11-20 08:23:14 UTC\n" +
			"LABEL: \n" +
			"START TIMELINE: 10\n",
		BackupLabel{Start: 1 << 32, Segment: "0000000A0000000100000000", Checkpoint: 1<<32 + 0x38, Method: "streamed", From: "primary",
			StartTime: "2026-11-20 08:23:14 UTC", Timeline: 10},
	},
	"17, incremental": {
		"START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\n" +
			"CHECKPOINT LOCATION: 0/4000080\n" +
			"BACKUP METHOD: streamed\n" +
			"BACKUP FROM: standby\n" +
			"START TIME: 2026-11-20 08:23:16 UTC\n" +
			"LABEL: pg_basebackup base backup\n" +
			"START TIMELINE: 1\n" +
			"INCREMENTAL FROM LSN: 0/2000028\n" +
			"INCREMENTAL FROM TLI: 1\n",
		BackupLabel{Start: 0x4000028, Segment: "000000010000000000000004", Checkpoint: 0x4000080, Method: "streamed", From: "standby",
			StartTime: "2026-11-20 08:23:16 UTC", Label: "pg_basebackup base backup", Timeline: 1, IncrementalFrom: true},
	},
	"the two lines that must be": {
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n",
		BackupLabel{Start: 0x2000028, Segment: "000000010000000000000002", Checkpoint: 0x2000060, Timeline: 1},
	},
}

func TestBackupLabel(t *testing.T) {
	for name, test := range labels {
		t.Run(name, func(t *testing.T) {
			got, err := ParseBackupLabel([]byte(test.text))
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestRefusedBackupLabel(t *testing.T) {
	good := labels["14 and later"].text
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q to change", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, text := range map[string]string{
		"empty":                     "",
		"one line break":            "\n",
		"one line":                  good[:strings.IndexByte(good, '\n')+1],
		"CR LF":                     strings.ReplaceAll(good, "\n", "\r\n"),
		"CR LF in the first line":   strings.Replace(good, "\n", "\r\n", 1),
		"last line cut":             strings.TrimSuffix(good, "\n"),
		"cut in the middle":         good[:len(good)/2],
		"space before":              " " + good,
		"byte order mark":           "\ufeff" + good,
		"first two swapped":         "CHECKPOINT LOCATION: 0/2000060\nSTART WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
		"no start":                  change("1/0 (", " ("),
		"start is no position":      change("1/0 (", "1-0 ("),
		"no file":                   change(" (file 0000000A0000000100000000)", ""),
		"short file":                change("0000000A0000000100000000", "0000000A00000001000000"),
		"file in small letters":     change("0000000A0000000100000000", "0000000a0000000100000000"),
		"file not closed":           change(")", ""),
		"timeline 0":                change("0000000A", "00000000"),
		"text after the file":       change(")", ") "),
		"no checkpoint":             change("1/38", ""),
		"checkpoint is no position": change("1/38", "1/38 "),
		"unknown line":              good + "BACKUP BY: me\n",
		"empty line":                change("LABEL: \n", "LABEL: \n\n"),
		"line without a value":      change("LABEL: \n", "LABEL\n"),
		"other timeline":            change("TIMELINE: 10", "TIMELINE: 1"),
		"timeline in hex":           change("TIMELINE: 10", "TIMELINE: A"),
		"no such timeline":          change("TIMELINE: 10", "TIMELINE: 4294967306"),
		// What a label with a line break would forge.
		"forged timeline":        change("LABEL: \n", "LABEL: x\nSTART TIMELINE: 99\n"),
		"forged true timeline":   change("LABEL: \n", "LABEL: x\nSTART TIMELINE: 10\n"),
		"forged origin":          change("LABEL: \n", "LABEL: x\nBACKUP FROM: standby\n"),
		"forged method":          change("LABEL: \n", "LABEL: x\nBACKUP METHOD: pg_start_backup\n"),
		"second label":           change("LABEL: \n", "LABEL: x\nLABEL: y\n"),
		"rest of a broken label": change("LABEL: \n", "LABEL: x\ny\n"),
		"second start":           good + good,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseBackupLabel([]byte(text)); err == nil {
				t.Errorf("%q was read as %+v", text, got)
			} else if !strings.HasPrefix(err.Error(), "backup_label: ") {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

// A label cut anywhere is refused, or says less of what can be left out.
func TestCutBackupLabel(t *testing.T) {
	whole := labels["14 and later"]
	for length := range len(whole.text) {
		got, err := ParseBackupLabel([]byte(whole.text[:length]))
		if err == nil && (got.Start != whole.want.Start || got.Checkpoint != whole.want.Checkpoint || got.Timeline != whole.want.Timeline) {
			t.Errorf("cut to %q it is %+v", whole.text[:length], got)
		}
	}
}

func TestMatches(t *testing.T) {
	for name, test := range map[string]struct {
		label string
		start wal.LSN
		good  bool
	}{
		"the same":    {"11 to 13", 0x2000028, true},
		"another":     {"11 to 13", 0x2000029, false},
		"zero":        {"11 to 13", 0, false},
		"incremental": {"17, incremental", 0x4000028, false},
	} {
		label, err := ParseBackupLabel([]byte(labels[test.label].text))
		if err == nil {
			err = label.Matches(test.start)
		}
		if (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckLabel(t *testing.T) {
	for name, test := range map[string]struct {
		label string
		good  bool
	}{
		"plain":            {"before the upgrade", true},
		"odd":              {`Ü, 漢字: "100 %" \ '$(rm)'`, true},
		"a line of a file": {"START TIMELINE: 99", true}, // harmless without a line break
		"longest":          {strings.Repeat("x", MaxLabel), true},
		"longest in bytes": {strings.Repeat("é", MaxLabel/2), true},
		"empty":            {"", false},
		"too long":         {strings.Repeat("x", MaxLabel+1), false},
		"too many bytes":   {strings.Repeat("é", MaxLabel/2+1), false},
		"line feed":        {"x\nSTART TIMELINE: 99", false},
		"only a line feed": {"\n", false},
		"carriage return":  {"x\r", false},
		"NUL":              {"x\x00", false},
		"tab":              {"x\ty", false},
		"escape":           {"\x1b[31mred", false},
		"delete":           {"x\x7f", false},
		"line separator":   {"x\u2028y", false},
		"next line":        {"x\u0085y", false},
		"right to left":    {"x\u202ey", false},
		"not UTF-8":        {"x\xff", false},
		"no-break space":   {"x\u00a0y", false},
	} {
		if err := CheckLabel(test.label); (err == nil) != test.good {
			t.Errorf("%s: %q: %v", name, test.label, err)
		}
	}
}

func TestDefaultLabel(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 8, 7, 6, time.FixedZone("CET", 3600))
	label := DefaultLabel("20261120-080807-beef", at)
	if want := "pgsnap 20261120-080807-beef 2026-11-20T08:08:07Z"; label != want || CheckLabel(label) != nil {
		t.Errorf("the label is %q, want %q", label, want)
	}
}

// FuzzBackupLabel looks for a text that passes although it could be read in
// another way, by itself or behind the two lines that must be.
func FuzzBackupLabel(f *testing.F) {
	head := labels["the two lines that must be"].text
	for _, label := range labels {
		f.Add([]byte(label.text))
		f.Add([]byte(strings.ReplaceAll(label.text, "\n", "\r\n")))
		_, rest, _ := strings.Cut(label.text, "\n")
		_, rest, _ = strings.Cut(rest, "\n")
		f.Add([]byte(rest))
	}
	f.Add([]byte("LABEL: a\nLABEL: b\n"))
	f.Add([]byte("LABEL: a\nSTART TIMELINE: 2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, text := range []string{string(data), head + string(data)} {
			if label, err := ParseBackupLabel([]byte(text)); err == nil {
				assertSays(t, text, label)
			}
		}
	})
}

// assertSays finds in a text what was read from it.
func assertSays(t *testing.T, text string, label BackupLabel) {
	t.Helper()
	first, rest, _ := strings.Cut(text, "\n")
	second, rest, _ := strings.Cut(rest, "\n")
	start, _, _ := strings.Cut(strings.TrimPrefix(first, "START WAL LOCATION: "), " ")
	if lsn, err := wal.ParseLSN(start); err != nil || lsn != label.Start || first != "START WAL LOCATION: "+start+" (file "+label.Segment+")" {
		t.Errorf("%q begins at %v in %s", first, label.Start, label.Segment)
	}
	if lsn, err := wal.ParseLSN(strings.TrimPrefix(second, "CHECKPOINT LOCATION: ")); err != nil || lsn != label.Checkpoint {
		t.Errorf("%q is %v", second, label.Checkpoint)
	}
	if label.Timeline == 0 || !wal.IsSegmentName(label.Segment) {
		t.Errorf("timeline %d, segment %q", label.Timeline, label.Segment)
	}
	lines := "\n" + rest
	for key, value := range map[string]string{"LABEL": label.Label, "BACKUP FROM": label.From, "BACKUP METHOD": label.Method, "START TIME": label.StartTime} {
		if count := strings.Count(lines, "\n"+key+": "); count > 1 || count == 1 && !strings.Contains(lines, "\n"+key+": "+value+"\n") {
			t.Errorf("%s is %q in %q", key, value, rest)
		}
	}
	if strings.Contains(lines, "\nINCREMENTAL FROM ") != label.IncrementalFrom {
		t.Errorf("incremental: %v, in %q", label.IncrementalFrom, rest)
	}
}
