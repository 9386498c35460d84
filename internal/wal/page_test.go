package wal

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

const (
	testSystem = 7000000000000000001
	testMagic  = 0xD110 // of PostgreSQL 15
	pages      = mib / pageSize
)

// testRange is half a segment of the smallest size: pages up to 20 are looked at.
var testRange = Range{Timeline: 1, Start: 3*mib + 40, Stop: 3*mib + 20*pageSize + 100, SegmentSize: mib}

// makeSegment makes a segment as a server writes it, as far as page headers go.
func makeSegment(r Range, number uint64, system uint64) []byte {
	data := bytes.Repeat([]byte{0xA5}, int(r.SegmentSize))
	for offset := uint64(0); offset < r.SegmentSize; offset += pageSize {
		page := data[offset:]
		binary.LittleEndian.PutUint16(page[0:], testMagic)
		binary.LittleEndian.PutUint16(page[2:], 0)
		binary.LittleEndian.PutUint32(page[4:], r.Timeline)
		binary.LittleEndian.PutUint64(page[8:], number*r.SegmentSize+offset)
	}
	binary.LittleEndian.PutUint16(data[2:], longHeaderFlag)
	binary.LittleEndian.PutUint64(data[24:], system)
	binary.LittleEndian.PutUint32(data[32:], uint32(r.SegmentSize))
	binary.LittleEndian.PutUint32(data[36:], pageSize)
	return data
}

// check hands a segment to a checker in pieces of that size.
func check(data []byte, piece int) error {
	checker := newPageChecker(testSystem, testRange, 3)
	for len(data) > 0 {
		n := min(piece, len(data))
		if written, err := checker.Write(data[:n]); err != nil || written != n {
			return err
		}
		data = data[n:]
	}
	return checker.Close()
}

func TestPages(t *testing.T) {
	address := func(page int, number uint64) func([]byte) []byte {
		return func(data []byte) []byte {
			binary.LittleEndian.PutUint64(data[page*pageSize+8:], number)
			return data
		}
	}
	for name, test := range map[string]struct {
		damage func([]byte) []byte
		want   string // in the error; empty where there is none
	}{
		"as written":             {func(data []byte) []byte { return data }, ""},
		"recycled":               {func([]byte) []byte { return makeSegment(testRange, 1, testSystem) }, "does not hold 0/300000: its page there is that of 0/100000"},
		"recycled after a page":  {address(7, mib+7*pageSize), "does not hold 0/30E000: its page there is that of 0/10E000"},
		"zeros":                  {func(data []byte) []byte { return make([]byte, len(data)) }, "is that of 0/0"},
		"zeros after a page":     {func(data []byte) []byte { clear(data[5*pageSize:]); return data }, "does not hold 0/30A000"},
		"last page that counts":  {address(20, 0), "does not hold 0/328000"},
		"first page after stop":  {address(21, 0), ""},
		"old content after stop": {func(data []byte) []byte { clear(data[21*pageSize:]); return data }, ""},
		"other version's page": {func(data []byte) []byte { data[9*pageSize]++; return data },
			"the page at 0/312000 has magic number D111 instead of D110"},
		"another cluster's":   {func([]byte) []byte { return makeSegment(testRange, 3, testSystem+1) }, "of another cluster: system identifier 7000000000000000002"},
		"short header":        {func(data []byte) []byte { data[2] = 0; return data }, "does not begin with a segment's header"},
		"other segment size":  {func(data []byte) []byte { data[34]++; return data }, "a segment size of 1114112 bytes instead of 1048576"},
		"other block size":    {func(data []byte) []byte { data[37] = 0x40; return data }, "blocks of 16384 bytes"},
		"empty":               {func([]byte) []byte { return nil }, "has 0 bytes instead of 1048576"},
		"one byte short":      {func(data []byte) []byte { return data[:mib-1] }, "has 1048575 bytes instead of 1048576"},
		"ends after the stop": {func(data []byte) []byte { return data[:21*pageSize] }, "has 172032 bytes"},
		"one byte too long":   {func(data []byte) []byte { return append(data, 0) }, "has 1048577 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			data := test.damage(makeSegment(testRange, 3, testSystem))
			for _, piece := range []int{mib, pageSize, 1000, 1 << 15} {
				err := check(data, piece)
				switch {
				case test.want == "" && err != nil:
					t.Fatal(err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Fatalf("error %v, want one with %q", err, test.want)
				case err != nil && !strings.Contains(err.Error(), "000000010000000000000003"):
					t.Errorf("%v does not name the segment", err)
				}
			}
		})
	}
}

// Where the log was switched to the next segment, the rest of this one is blank:
// good if the backup's end lies behind it.
func TestBlankPages(t *testing.T) {
	for name, test := range map[string]struct {
		stop   LSN
		damage func(data []byte)
		want   string
	}{
		"whole":             {4 * mib, func([]byte) {}, ""},
		"switched":          {4*mib + 100, func(data []byte) { clear(data[5*pageSize:]) }, ""},
		"stop at boundary":  {4 * mib, func(data []byte) { clear(data[5*pageSize:]) }, ""},
		"last page alone":   {4*mib + 100, func(data []byte) { clear(data[(pages-1)*pageSize:]) }, ""},
		"stop within":       {4*mib - 1, func(data []byte) { clear(data[5*pageSize:]) }, "does not hold 0/30A000"},
		"from its begin":    {4*mib + 100, func(data []byte) { clear(data) }, "does not hold 0/300000"},
		"not up to the end": {4*mib + 100, func(data []byte) { clear(data[5*pageSize : 9*pageSize]) }, "is blank before 0/312000, but not there"},
		"not quite":         {4*mib + 100, func(data []byte) { clear(data[5*pageSize:]); data[6*pageSize-1] = 1 }, "does not hold 0/30A000"},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRange
			r.Stop = test.stop
			data := makeSegment(r, 3, testSystem)
			test.damage(data)
			checker := newPageChecker(testSystem, r, 3)
			_, err := checker.Write(data)
			if err == nil {
				err = checker.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
