package wal

import (
	"fmt"
	"testing"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestSegmentName(t *testing.T) {
	for _, test := range []struct {
		timeline uint32
		size     uint64
		at       LSN
		want     string
	}{
		{1, 16 * mib, 0x2000028, "000000010000000000000002"},
		{1, 16 * mib, 0xFFFFFFFF, "0000000100000000000000FF"},
		{1, 16 * mib, 0x1_00000000, "000000010000000100000000"},
		{0x1F, 16 * mib, 0x16_B374D848, "0000001F00000016000000B3"},
		{0xFFFFFFFF, 16 * mib, 0xFFFFFFFF_FFFFFFFF, "FFFFFFFFFFFFFFFF000000FF"},
		{1, mib, 0xFFFFFFFF, "000000010000000000000FFF"},
		{1, mib, 0x1_00000000, "000000010000000100000000"},
		{1, mib, 0x1_00100000, "000000010000000100000001"},
		{1, 64 * mib, 0xFFFFFFFF, "00000001000000000000003F"},
		{1, gib, 0x3FFFFFFF, "000000010000000000000000"},
		{1, gib, 0xFFFFFFFF, "000000010000000000000003"},
		{1, gib, 0x1_40000000, "000000010000000100000001"},
	} {
		r := Range{Timeline: test.timeline, Start: test.at, Stop: test.at + 1, SegmentSize: test.size}
		first, _ := r.Segments()
		if got := r.SegmentName(first); got != test.want || !IsSegmentName(got) {
			t.Errorf("%v on timeline %d in segments of %d MiB: %s, want %s", test.at, test.timeline, test.size/mib, got, test.want)
		}
	}
}

// The names of neighbours, over every size: a segment ends where the next begins,
// and the second half of the name begins anew every 4 GiB.
func TestSegmentNamesInOrder(t *testing.T) {
	for size := uint64(mib); size <= gib; size *= 2 {
		t.Run(fmt.Sprint(size/mib), func(t *testing.T) {
			r := Range{Timeline: 1, SegmentSize: size}
			last := (uint64(1<<32) - 1) / size
			if got, want := r.SegmentName(last), fmt.Sprintf("0000000100000000%08X", 1<<32/size-1); got != want {
				t.Errorf("the last below 4 GiB is %s, want %s", got, want)
			}
			if got, want := r.SegmentName(last+1), "000000010000000100000000"; got != want {
				t.Errorf("the first above 4 GiB is %s, want %s", got, want)
			}
			for number := uint64(0); number < 3*last; number += max(1, last/7) {
				if this, next := r.SegmentName(number), r.SegmentName(number+1); this >= next {
					t.Errorf("%s is not before %s", this, next)
				}
			}
		})
	}
}

func TestSegmentsOfRange(t *testing.T) {
	const size = 16 * mib
	for name, test := range map[string]struct {
		start, stop LSN
		first, last uint64
	}{
		"within one":               {2*size + 40, 2*size + 400, 2, 2},
		"whole":                    {2 * size, 3 * size, 2, 2},
		"one byte":                 {2 * size, 2*size + 1, 2, 2},
		"stop at a boundary":       {2*size + 40, 3 * size, 2, 2},
		"stop one byte after it":   {2*size + 40, 3*size + 1, 2, 3},
		"start at a boundary":      {3 * size, 4*size + 1, 3, 4},
		"start one byte before it": {3*size - 1, 3*size + 1, 2, 3},
		"over 4 GiB":               {1<<32 - 1, 1<<32 + 1, 255, 256},
		"stop at 4 GiB":            {1<<32 - 1, 1 << 32, 255, 255},
		"several":                  {2 * size, 7*size + 1, 2, 7},
	} {
		t.Run(name, func(t *testing.T) {
			r := Range{Timeline: 1, Start: test.start, Stop: test.stop, SegmentSize: size}
			if err := r.Valid(); err != nil {
				t.Fatal(err)
			}
			if first, last := r.Segments(); first != test.first || last != test.last {
				t.Errorf("segments %d to %d, want %d to %d", first, last, test.first, test.last)
			}
		})
	}
}

func TestInvalidRange(t *testing.T) {
	good := Range{Timeline: 1, Start: 1, Stop: 2, SegmentSize: 16 * mib}
	if err := good.Valid(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Range){
		"no timeline":       func(r *Range) { r.Timeline = 0 },
		"empty":             func(r *Range) { r.Stop = r.Start },
		"backwards":         func(r *Range) { r.Stop = 0 },
		"no segment size":   func(r *Range) { r.SegmentSize = 0 },
		"size below 1 MiB":  func(r *Range) { r.SegmentSize = mib / 2 },
		"size above 1 GiB":  func(r *Range) { r.SegmentSize = 2 * gib },
		"no power of two":   func(r *Range) { r.SegmentSize = 17 * mib },
		"one byte too much": func(r *Range) { r.SegmentSize = 16*mib + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			change(&bad)
			if err := bad.Valid(); err == nil {
				t.Errorf("%+v is valid", bad)
			}
		})
	}
}

func TestFileNames(t *testing.T) {
	for name, want := range map[string]struct {
		segment bool
		history uint32
	}{
		"000000010000000000000002":                 {segment: true},
		"0000000A00000016000000B3":                 {segment: true},
		"00000002.history":                         {history: 2},
		"0000001F.history":                         {history: 31},
		"":                                         {},
		"00000001000000000000000":                  {}, // too short
		"0000000100000000000000020":                {}, // too long
		"0000000a00000016000000b3":                 {}, // the server writes capitals
		"00000001000000000000000G":                 {},
		"000000010000000000000002.partial":         {},
		"000000010000000000000002.00000028.backup": {},
		"00000002.history.done":                    {},
		"00000002.History":                         {},
		"2.history":                                {},
		"0000000G.history":                         {},
		"../00002.history":                         {},
		"00000000000000000000000/":                 {},
		"../../../../../etc/shadow":                {},
	} {
		timeline, isHistory := HistoryTimeline(name)
		if IsSegmentName(name) != want.segment || isHistory != (want.history > 0) || timeline != want.history {
			t.Errorf("%q: segment %v, history %v of timeline %d", name, IsSegmentName(name), isHistory, timeline)
		}
	}
}
