package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"pgsnap/internal/durable"
)

// compressed ends the name of every file that Capture writes.
const compressed = ".zst"

// Captured is what a backup keeps of the write-ahead log.
type Captured struct {
	Range
	// Files are the names of the segments and timeline histories, in order.
	Files []string `json:"files"`
	// Bytes is their size before compression, StoredBytes after it.
	Bytes       int64 `json:"bytes"`
	StoredBytes int64 `json:"stored_bytes"`
}

// Capture copies the segments of r, and the histories of its timeline and the
// ones before it, from a cluster's pg_wal into dir, compressed and durable.
// Every page up to r.Stop must be the one that belongs there. Whoever calls it
// makes sure that the server keeps the segments meanwhile.
func Capture(ctx context.Context, pgWAL, dir string, r Range, system uint64) (Captured, error) {
	captured := Captured{Range: r}
	if err := r.Valid(); err != nil {
		return captured, err
	}
	histories, err := historyFiles(pgWAL, r.Timeline)
	if err != nil {
		return captured, err
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return captured, err
	}
	keep := func(name string, check io.Writer) error {
		read, stored, err := compressFile(ctx, encoder, filepath.Join(pgWAL, name), filepath.Join(dir, name+compressed), check)
		captured.Files = append(captured.Files, name)
		captured.Bytes += read
		captured.StoredBytes += stored
		return err
	}
	for _, name := range histories {
		if err := keep(name, io.Discard); err != nil {
			return captured, err
		}
	}
	first, last := r.Segments()
	for number := first; number <= last; number++ {
		checker := newPageChecker(system, r, number)
		err := keep(checker.name, checker)
		if err == nil {
			err = checker.Close()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return captured, fmt.Errorf("WAL segment %s, which the backup needs, is no longer in %s", checker.name, pgWAL)
		}
		if err != nil {
			return captured, err
		}
	}
	return captured, durable.SyncDirectory(dir)
}

// Unpack writes a captured range into a restored copy's pg_wal, checking every
// page once more, and marks each file as archived, as pg_basebackup does. It
// does not wait for the disk: a server that starts in recovery flushes its whole
// data directory first (SyncDataDirectory in xlog.c).
func Unpack(ctx context.Context, dir, pgWAL string, captured Captured, system uint64) error {
	if err := captured.Valid(); err != nil {
		return err
	}
	numbers := map[string]uint64{}
	first, last := captured.Range.Segments()
	for number := first; number <= last; number++ {
		name := captured.SegmentName(number)
		numbers[name] = number
		if !slices.Contains(captured.Files, name) {
			return fmt.Errorf("the backup does not hold WAL segment %s", name)
		}
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer decoder.Close()
	status := filepath.Join(pgWAL, "archive_status")
	for _, name := range captured.Files {
		number, isSegment := numbers[name]
		if _, isHistory := HistoryTimeline(name); !isSegment && !isHistory {
			return fmt.Errorf("the backup lists %q, which is not a file of its WAL", name)
		}
		checker := newPageChecker(system, captured.Range, number)
		var check io.Writer = checker
		if !isSegment {
			check = io.Discard
		}
		if err := decompressFile(ctx, decoder, filepath.Join(dir, name+compressed), filepath.Join(pgWAL, name), check); err != nil {
			return err
		}
		if isSegment {
			if err := checker.Close(); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(status, name+".done"), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func historyFiles(pgWAL string, upTo uint32) ([]string, error) {
	entries, err := os.ReadDir(pgWAL)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if timeline, ok := HistoryTimeline(entry.Name()); ok && timeline <= upTo {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func compressFile(ctx context.Context, encoder *zstd.Encoder, from, to string, check io.Writer) (read, stored int64, err error) {
	source, err := openRegular(from)
	if err != nil {
		return 0, 0, err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	encoder.Reset(target)
	read, err = io.Copy(io.MultiWriter(check, encoder), reader{ctx, source})
	if err == nil {
		err = encoder.Close()
	}
	if err != nil {
		return read, 0, err
	}
	if err := target.Sync(); err != nil {
		return read, 0, err
	}
	info, err := target.Stat()
	if err != nil {
		return read, 0, err
	}
	return read, info.Size(), nil
}

// openRegular opens a file that the server's user may have put there. It follows
// no link, which would let that user read any file by root's hand, and does not
// wait for the other end of a pipe.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func decompressFile(ctx context.Context, decoder *zstd.Decoder, from, to string, check io.Writer) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := decoder.Reset(reader{ctx, source}); err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	written, err := io.Copy(io.MultiWriter(check, target), decoder)
	if err == nil && written == 0 { // a file cut down to nothing decompresses without an error
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSuffix(filepath.Base(from), compressed), err)
	}
	return nil
}

// reader ends a copy when its context is done.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
