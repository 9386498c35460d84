package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/wal"
)

// pollEvery is how often a copy is asked whether it is out of recovery.
const pollEvery = 20 * time.Millisecond

// bare does by hand what must be done at the least, as a short script would: no
// checks, no record, nothing made durable that is so by itself.
type bare struct {
	*site
	psql     string
	snapshot string
	copy     string
	socket   string // directory of the copy's
	kept     string // directory of the WAL that the backup needs
	label    string
	segments []string
	instance *pgtest.Instance // the copy
}

func newBare(s *site) (*bare, error) {
	b := &bare{site: s, snapshot: filepath.Join(s.fs.Dir, "bare-snapshot"), copy: filepath.Join(s.fs.Dir, "bare-copy"), kept: s.dir}
	var err error
	if b.psql, err = pgtest.Tool("psql"); err != nil {
		return nil, err
	}
	b.socket, err = s.lab.SocketDir()
	return b, err
}

// The words by which psql, or its shell, says how far it has come.
const (
	connected = "bench-connected"
	cut       = "bench-cut"
	stopped   = "bench-stopped"
)

// take feeds one psql. As with pgsnap, the window is from the first byte of the
// start to the stop's answer; connecting comes before it.
func (b *bare) take(ctx context.Context) (t taken, err error) {
	began := time.Now()
	cmd := command(ctx, b.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", b.cluster.DSN())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return t, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return t, err
	}
	if err := cmd.Start(); err != nil {
		return t, err
	}
	answers := bufio.NewReader(stdout)
	_, _ = io.WriteString(stdin, "SELECT '"+connected+"';\n") // whatever is wrong, psql says so at its end
	readUntil(answers, connected)
	laps := stopwatch{began: time.Now()}
	_, _ = io.WriteString(stdin, "SELECT pg_backup_start('bare', true);\n"+
		`\! btrfs subvolume snapshot -r `+shellWord(b.cluster.DataDir)+" "+shellWord(b.snapshot)+" >/dev/null && echo "+cut+"\n"+
		"SELECT * FROM pg_backup_stop(false);\n"+
		"SELECT '"+stopped+"';\n")
	_, _ = answers.ReadString('\n') // the start's position
	start := laps.next()
	_, isCut := readUntil(answers, cut)
	snapshot := laps.next()
	said, isStopped := readUntil(answers, stopped)
	t.phases = map[string]float64{"start": start.Seconds(), "cut": snapshot.Seconds(), "stop": laps.next().Seconds()}
	t.window = laps.all()
	_ = stdin.Close()
	err = failure(cmd, cmd.Wait(), stderr.String())
	t.total = time.Since(began)
	if err == nil && !(isCut && isStopped) {
		err = fmt.Errorf("the bare backup failed: %s", strings.TrimSpace(stderr.String()))
	}
	if err != nil {
		return t, err
	}
	return t, b.keep(said)
}

// stopwatch takes the times of steps that follow each other.
type stopwatch struct {
	began time.Time
	laps  time.Duration // of all steps so far
}

func (s *stopwatch) next() time.Duration {
	before := s.laps
	s.laps = time.Since(s.began)
	return s.laps - before
}

func (s *stopwatch) all() time.Duration { return s.laps }

// readUntil reads to a line that says just that, and tells whether it came.
func readUntil(from *bufio.Reader, word string) (text string, found bool) {
	var before strings.Builder
	for {
		line, err := from.ReadString('\n')
		if err != nil || line == word+"\n" {
			return before.String(), err == nil
		}
		before.WriteString(line)
	}
}

func shellWord(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// keep puts aside what a restore needs beside the snapshot. said is the stop's
// answer: position, label and empty map.
func (b *bare) keep(said string) error {
	stop, rest, _ := strings.Cut(said, "|")
	b.label = rest[:max(0, strings.LastIndexByte(rest, '|'))]
	label, err := pgctl.ParseBackupLabel([]byte(b.label))
	if err != nil {
		return fmt.Errorf("psql said %q: %w", said, err)
	}
	needed := wal.Range{Timeline: label.Timeline, Start: label.Start, SegmentSize: 16 << 20}
	if needed.Stop, err = wal.ParseLSN(stop); err != nil {
		return err
	}
	b.segments = nil
	first, last := needed.Segments()
	for number := first; number <= last; number++ {
		name := needed.SegmentName(number)
		if err := copyFile(filepath.Join(b.cluster.DataDir, "pg_wal", name), filepath.Join(b.kept, name)); err != nil {
			return err
		}
		b.segments = append(b.segments, name)
	}
	return nil
}

// copyFile holds no more than a small part of the file: what our own process has
// in memory is counted as its children's too.
func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

func (b *bare) restore(ctx context.Context) (r restored, err error) {
	laps := stopwatch{began: time.Now()}
	if err := btrfs(ctx, "subvolume", "snapshot", b.snapshot, b.copy); err != nil {
		return r, err
	}
	clone := laps.next()
	if err := b.prepare(); err != nil {
		return r, err
	}
	prepare := laps.next()
	log := filepath.Join(b.socket, "server.log") // where the server's user may write
	start := b.lab.Command(ctx, b.cluster.Server.Bin("pg_ctl"), "start", "-s", "-w", "-D", b.copy, "-l", log)
	if err := runCommand(start); err != nil {
		said, _ := os.ReadFile(log)
		return r, fmt.Errorf("%w\n%s", err, said)
	}
	if b.instance, err = pgtest.Attach(b.copy, b.socket, b.cluster.Port, "postgres"); err != nil {
		return r, err
	}
	for {
		recovering, err := b.instance.Query(ctx, "SELECT pg_is_in_recovery()")
		if err != nil {
			return r, err
		}
		if recovering == "f" {
			r.phases = map[string]float64{"clone": clone.Seconds(), "prepare": prepare.Seconds(), "start": laps.next().Seconds()}
			r.total = laps.all()
			return r, nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return r, err
		}
	}
}

// prepare puts into the clone what its server needs to recover by itself.
func (b *bare) prepare() error {
	for _, stale := range []string{"postmaster.pid", "postmaster.opts"} {
		if err := os.Remove(filepath.Join(b.copy, stale)); err != nil {
			return err
		}
	}
	var made []string
	for _, name := range b.segments {
		path := filepath.Join(b.copy, "pg_wal", name)
		if err := copyFile(filepath.Join(b.kept, name), path); err != nil {
			return err
		}
		made = append(made, path)
	}
	for name, text := range map[string]string{"backup_label": b.label, "recovery.signal": ""} {
		path := filepath.Join(b.copy, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		made = append(made, path)
	}
	for _, path := range made {
		if err := b.lab.Own(path); err != nil {
			return err
		}
	}
	settings, err := os.OpenFile(filepath.Join(b.copy, "postgresql.auto.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(settings, "restore_command = 'false'\nunix_socket_directories = '%s'\n", b.socket)
	return errors.Join(err, settings.Close())
}

func (b *bare) remove(ctx context.Context) error {
	if err := b.instance.Stop(ctx, pgtest.Immediate); err != nil {
		return err
	}
	for _, name := range b.segments {
		if err := os.Remove(filepath.Join(b.kept, name)); err != nil {
			return err
		}
	}
	return btrfs(ctx, "subvolume", "delete", b.copy, b.snapshot)
}
