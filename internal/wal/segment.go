package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// Range is the WAL that a backup needs: from Start up to, not including, Stop,
// on one timeline.
type Range struct {
	Timeline uint32 `json:"timeline"`
	Start    LSN    `json:"start_lsn"`
	Stop     LSN    `json:"stop_lsn"`
	// SegmentSize is in bytes: a power of two from 1 MiB to 1 GiB.
	SegmentSize uint64 `json:"segment_size"`
}

// Segments are the numbers of the segments that hold the range: the one with
// Start's byte through the one with the byte before Stop.
func (r Range) Segments() (first, last uint64) {
	return uint64(r.Start) / r.SegmentSize, (uint64(r.Stop) - 1) / r.SegmentSize
}

// Valid tells whether the range can be read at all.
func (r Range) Valid() error {
	size := r.SegmentSize
	switch {
	case size < 1<<20 || size > 1<<30 || size&(size-1) != 0:
		return fmt.Errorf("WAL segment size %d is not a power of two from 1 MiB to 1 GiB", size)
	case r.Timeline == 0:
		return fmt.Errorf("timeline 0 does not exist")
	case r.Stop <= r.Start:
		return fmt.Errorf("the backup's end %s is not after its start %s", r.Stop, r.Start)
	}
	return nil
}

// SegmentName is the file name of a segment. It is computed here rather than
// by pg_walfile_name(), whose answer at a boundary changed in PostgreSQL 17.
func (r Range) SegmentName(number uint64) string {
	perID := uint64(1<<32) / r.SegmentSize
	return fmt.Sprintf("%08X%08X%08X", r.Timeline, number/perID, number%perID)
}

// IsSegmentName tells whether a file name is a segment's.
func IsSegmentName(name string) bool { return isHex(name, 24) }

// HistoryTimeline is the timeline whose history a file holds, if its name is
// that of a timeline history file.
func HistoryTimeline(name string) (uint32, bool) {
	stem, isHistory := strings.CutSuffix(name, ".history")
	if !isHistory || !isHex(stem, 8) {
		return 0, false
	}
	timeline, err := strconv.ParseUint(stem, 16, 32)
	return uint32(timeline), err == nil
}

func isHex(name string, length int) bool {
	if len(name) != length {
		return false
	}
	for _, c := range name {
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
