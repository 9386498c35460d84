package wal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgsnap/internal/pgtest"
)

// logs are a made-up pg_wal with three segments of a backup and what else lies
// in one, the catalog's directory, and a restored copy's pg_wal.
type logs struct {
	pgWAL, kept, restored string
	needed                Range
}

func newLogs(t *testing.T) logs {
	t.Helper()
	l := logs{pgWAL: t.TempDir(), kept: t.TempDir(), restored: t.TempDir(),
		needed: Range{Timeline: 3, Start: 2*mib + 40, Stop: 4*mib + 5*pageSize, SegmentSize: mib}}
	for number := uint64(1); number <= 6; number++ {
		l.write(t, l.needed.SegmentName(number), makeSegment(l.needed, number, testSystem))
	}
	for _, name := range []string{"00000002.history", "00000003.history", "00000004.history"} {
		l.write(t, name, []byte("1\t0/3000000\tno recovery target specified\n"))
	}
	l.write(t, "000000030000000000000002.00000028.backup", []byte("START WAL LOCATION: 0/200028\n"))
	pgtest.Check(t, os.Mkdir(filepath.Join(l.pgWAL, "archive_status"), 0o700))
	pgtest.Check(t, os.Mkdir(filepath.Join(l.restored, "archive_status"), 0o700))
	return l
}

func (l logs) write(t *testing.T, name string, data []byte) {
	t.Helper()
	pgtest.Check(t, os.WriteFile(filepath.Join(l.pgWAL, name), data, 0o600))
}

func (l logs) capture(ctx context.Context) (Captured, error) {
	return Capture(ctx, l.pgWAL, l.kept, l.needed, testSystem)
}

func (l logs) mustCapture(t *testing.T) Captured {
	t.Helper()
	captured, err := l.capture(t.Context())
	pgtest.Check(t, err)
	return captured
}

func (l logs) unpack(t *testing.T, captured Captured) error {
	return Unpack(t.Context(), l.kept, l.restored, captured, testSystem)
}

func TestCaptureAndUnpack(t *testing.T) {
	l := newLogs(t)
	captured := l.mustCapture(t)
	want := []string{
		"00000002.history", "00000003.history", // 4 is a later one
		"000000030000000000000002", "000000030000000000000003", "000000030000000000000004",
	}
	if !slices.Equal(captured.Files, want) {
		t.Errorf("captured %q, want %q", captured.Files, want)
	}
	stored := int64(0)
	for _, entry := range list(t, l.kept) {
		info, err := os.Stat(filepath.Join(l.kept, entry))
		pgtest.Check(t, err)
		if info.Mode() != 0o600 || !strings.HasSuffix(entry, ".zst") {
			t.Errorf("%s has mode %v", entry, info.Mode())
		}
		stored += info.Size()
	}
	if captured.StoredBytes != stored || captured.Bytes != 3*mib+2*int64(len("1\t0/3000000\tno recovery target specified\n")) {
		t.Errorf("%d bytes, %d stored, and there are %d", captured.Bytes, captured.StoredBytes, stored)
	}
	if captured.Range != l.needed {
		t.Errorf("captured %+v", captured.Range)
	}

	pgtest.Check(t, l.unpack(t, captured))
	for _, name := range want {
		before, err := os.ReadFile(filepath.Join(l.pgWAL, name))
		pgtest.Check(t, err)
		after, err := os.ReadFile(filepath.Join(l.restored, name))
		pgtest.Check(t, err)
		if !bytes.Equal(before, after) {
			t.Errorf("%s is not what it was", name)
		}
	}
	if got := list(t, l.restored); !slices.Equal(got, append(slices.Clone(want), "archive_status")) {
		t.Errorf("unpacked %q", got)
	}
	for i, name := range list(t, filepath.Join(l.restored, "archive_status")) {
		if name != want[i]+".done" {
			t.Errorf("marked as archived: %s", name)
		}
	}
}

func TestCaptureFails(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(t *testing.T, l *logs)
		want   string
	}{
		"segment gone": {func(t *testing.T, l *logs) {
			pgtest.Check(t, os.Remove(filepath.Join(l.pgWAL, "000000030000000000000003")))
		}, "WAL segment 000000030000000000000003, which the backup needs, is no longer in "},
		"segment recycled": {func(t *testing.T, l *logs) {
			l.write(t, "000000030000000000000004", makeSegment(l.needed, 1, testSystem))
		}, "WAL segment 000000030000000000000004 does not hold 0/400000"},
		"segment short": {func(t *testing.T, l *logs) {
			l.write(t, "000000030000000000000003", makeSegment(l.needed, 3, testSystem)[:mib/2])
		}, "000000030000000000000003 has 524288 bytes"},
		"other cluster's": {func(t *testing.T, l *logs) {
			l.write(t, "000000030000000000000002", makeSegment(l.needed, 2, 42))
		}, "another cluster: system identifier 42"},
		"range upside down": {func(_ *testing.T, l *logs) { l.needed.Stop = l.needed.Start }, "is not after its start"},
		"no pg_wal":         {func(_ *testing.T, l *logs) { l.pgWAL += "/none" }, "no such file"},
		"no place":          {func(_ *testing.T, l *logs) { l.kept += "/none" }, "no such file"},
		"taken already": {func(t *testing.T, l *logs) {
			pgtest.Check(t, os.WriteFile(filepath.Join(l.kept, "000000030000000000000002.zst"), nil, 0o600))
		}, "file exists"},
		// root must not read for the server's user what that user may not read.
		"history a link": {func(t *testing.T, l *logs) {
			pgtest.Check(t, os.Symlink("/etc/shadow", filepath.Join(l.pgWAL, "00000001.history")))
		}, "00000001.history"},
		"segment a pipe": {func(t *testing.T, l *logs) {
			path := filepath.Join(l.pgWAL, "000000030000000000000003")
			pgtest.Check(t, os.Remove(path))
			pgtest.Check(t, syscall.Mkfifo(path, 0o600))
		}, "000000030000000000000003"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogs(t)
			test.damage(t, &l)
			if _, err := l.capture(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// What the server still writes behind the backup's end does not matter.
func TestCaptureIgnoresWhatFollows(t *testing.T) {
	l := newLogs(t)
	data := makeSegment(l.needed, 4, testSystem)
	clear(data[5*pageSize:])
	l.write(t, "000000030000000000000004", data)
	l.write(t, "000000030000000000000005", nil)
	pgtest.Check(t, l.unpack(t, l.mustCapture(t)))
}

func TestCaptureCancelled(t *testing.T) {
	l := newLogs(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("somebody pressed a key")
	cancel(why)
	if _, err := l.capture(ctx); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	captured := l.mustCaptureElsewhere(t)
	if err := Unpack(ctx, l.kept, l.restored, captured, testSystem); !errors.Is(err, why) {
		t.Errorf("unpacking: error is %v", err)
	}
}

func (l *logs) mustCaptureElsewhere(t *testing.T) Captured {
	t.Helper()
	l.kept = t.TempDir()
	return l.mustCapture(t)
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("file systems can be mounted by root only")
	}
	disk := pgtest.Mount(t, pgtest.New(t), "ext4", 8)
	restored := filepath.Join(disk.Dir, "pg_wal")
	pgtest.Check(t, os.MkdirAll(filepath.Join(restored, "archive_status"), 0o700))
	filler, err := os.Create(filepath.Join(disk.Dir, "filler"))
	pgtest.Check(t, err)
	defer filler.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = filler.Write(chunk)
	}
	l := newLogs(t)
	captured := l.mustCapture(t)
	l.restored = restored
	if err := l.unpack(t, captured); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("unpacking to a full disk: %v", err)
	}
	l.kept = disk.Dir
	if _, err := l.capture(t.Context()); !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "no space left") != 1 {
		t.Errorf("capturing to a full disk: %v", err)
	}
}

func TestUnpackFails(t *testing.T) {
	rewrite := func(name string, change func([]byte) []byte) func(*testing.T, logs, *Captured) {
		return func(t *testing.T, l logs, _ *Captured) {
			path := filepath.Join(l.kept, name+compressed)
			data, err := os.ReadFile(path)
			pgtest.Check(t, err)
			pgtest.Check(t, os.WriteFile(path, change(data), 0o600))
		}
	}
	const segment, history = "000000030000000000000003", "00000003.history"
	half := func(data []byte) []byte { return data[:len(data)/2] }
	lastByte := func(data []byte) []byte { return data[:len(data)-1] }
	nothing := func([]byte) []byte { return nil }
	flip := func(data []byte) []byte { data[len(data)/2] ^= 0x10; return data }
	garbage := func(data []byte) []byte { return bytes.Repeat([]byte("garbage"), 100) }
	longer := func(data []byte) []byte { return append(data, "garbage"...) }
	add := func(name string) func(*testing.T, logs, *Captured) {
		return func(_ *testing.T, _ logs, c *Captured) { c.Files = append(c.Files, name) }
	}
	for name, damage := range map[string]func(*testing.T, logs, *Captured){
		"segment half":     rewrite(segment, half),
		"segment short":    rewrite(segment, lastByte),
		"segment empty":    rewrite(segment, nothing),
		"segment flipped":  rewrite(segment, flip),
		"segment garbage":  rewrite(segment, garbage),
		"segment and more": rewrite(segment, longer),
		"history half":     rewrite(history, half),
		"history empty":    rewrite(history, nothing),
		"history flipped":  rewrite(history, flip),
		"history and more": rewrite(history, longer),
		"file gone": func(t *testing.T, l logs, _ *Captured) {
			pgtest.Check(t, os.Remove(filepath.Join(l.kept, segment+compressed)))
		},
		"segment not listed": func(_ *testing.T, _ logs, c *Captured) {
			c.Files = slices.DeleteFunc(c.Files, func(n string) bool { return n == segment })
		},
		"listed twice":          add(segment),
		"path":                  add("../escaped"),
		"absolute path":         add("/escaped"),
		"path with a good end":  add("../00000002.history"),
		"path with a good head": add(segment + "/../../escaped"),
		"no name":               add(""),
		"segment after stop":    add("000000030000000000000005"),
		"other timeline":        add("000000010000000000000003"),
		"settings":              add("postgresql.auto.conf"),
		"no timeline":           func(_ *testing.T, _ logs, c *Captured) { c.Timeline = 0 },
		"no segment size":       func(_ *testing.T, _ logs, c *Captured) { c.SegmentSize = 0 },
		"endless":               func(_ *testing.T, _ logs, c *Captured) { c.Stop = 1<<64 - 1 },
		"backwards":             func(_ *testing.T, _ logs, c *Captured) { c.Stop = 0 },
		"swapped": func(t *testing.T, l logs, _ *Captured) {
			other := filepath.Join(l.kept, "000000030000000000000002"+compressed)
			pgtest.Check(t, os.Rename(other, filepath.Join(l.kept, segment+compressed)))
		},
		"there already": func(t *testing.T, l logs, _ *Captured) {
			pgtest.Check(t, os.WriteFile(filepath.Join(l.restored, segment), nil, 0o600))
		},
		"a link there": func(t *testing.T, l logs, _ *Captured) {
			pgtest.Check(t, os.Symlink(filepath.Join(l.pgWAL, "victim"), filepath.Join(l.restored, segment)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogs(t)
			captured := l.mustCapture(t)
			// What a path out of the directory would find.
			outside := filepath.Join(l.kept, "..", "escaped"+compressed)
			pgtest.Check(t, os.Link(filepath.Join(l.kept, history+compressed), outside))
			damage(t, l, &captured)
			if err := l.unpack(t, captured); err == nil {
				t.Error("it was unpacked")
			} else if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %v", err)
			}
			for _, escaped := range []string{filepath.Join(l.restored, "..", "escaped"), "/escaped", filepath.Join(l.pgWAL, "victim")} {
				if _, err := os.Lstat(escaped); err == nil {
					t.Errorf("%s was written", escaped)
				}
			}
		})
	}
}

// Another cluster's segments are not let in.
func TestUnpackElsewhere(t *testing.T) {
	l := newLogs(t)
	captured := l.mustCapture(t)
	err := Unpack(t.Context(), l.kept, l.restored, captured, testSystem+1)
	if err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("error is %v", err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	pgtest.Check(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
