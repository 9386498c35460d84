package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The page header is XLogPageHeaderData, and on a segment's first page
// XLogLongPageHeaderData, of src/include/access/xlog_internal.h; unchanged from
// 9.3 to 18 but for the magic number, and little-endian on every platform that
// pgsnap is built for.
const (
	pageSize       = 8192
	longHeaderFlag = 0x0002
)

var blankPage [pageSize]byte

// pageChecker reads a segment as it goes by and finds the first page that is
// not what stands at its place in the log: recycled, torn off, or foreign. Where
// the log was switched to the next segment (pg_switch_wal(), archive_timeout,
// another backup's end), 11 and later leave the rest of this one blank.
type pageChecker struct {
	system uint64 // the cluster's system identifier
	size   uint64 // of a segment, in bytes
	start  LSN    // of this segment
	until  LSN    // pages that begin at or after it are not looked at
	name   string

	magic  uint16
	blank  bool // since the last page
	offset uint64
	page   []byte
}

func newPageChecker(system uint64, r Range, number uint64) *pageChecker {
	return &pageChecker{
		system: system, size: r.SegmentSize, until: r.Stop,
		start: LSN(number * r.SegmentSize), name: r.SegmentName(number),
		page: make([]byte, 0, pageSize),
	}
}

// Write takes the segment's next bytes.
func (c *pageChecker) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		n := min(pageSize-len(c.page), len(data))
		c.page = append(c.page, data[:n]...)
		data = data[n:]
		if len(c.page) == pageSize {
			if err := c.checkPage(); err != nil {
				return 0, err
			}
			c.page = c.page[:0]
			c.offset += pageSize
		}
	}
	return written, nil
}

// Close tells whether the segment had its whole size.
func (c *pageChecker) Close() error {
	if size := c.offset + uint64(len(c.page)); size != c.size {
		return fmt.Errorf("WAL segment %s has %d bytes instead of %d", c.name, size, c.size)
	}
	return nil
}

func (c *pageChecker) checkPage() error {
	want := c.start + LSN(c.offset)
	if want >= c.until {
		return nil
	}
	switchable := c.offset > 0 && c.until >= c.start+LSN(c.size)
	if switchable && bytes.Equal(c.page, blankPage[:]) {
		c.blank = true
		return nil
	}
	if c.blank {
		return fmt.Errorf("WAL segment %s is blank before %s, but not there", c.name, want)
	}
	magic := binary.LittleEndian.Uint16(c.page[0:])
	info := binary.LittleEndian.Uint16(c.page[2:])
	address := LSN(binary.LittleEndian.Uint64(c.page[8:]))
	if address != want {
		return fmt.Errorf("WAL segment %s does not hold %s: its page there is that of %s", c.name, want, address)
	}
	if c.offset > 0 {
		if magic != c.magic {
			return fmt.Errorf("WAL segment %s: the page at %s has magic number %04X instead of %04X", c.name, want, magic, c.magic)
		}
		return nil
	}
	c.magic = magic
	system := binary.LittleEndian.Uint64(c.page[24:])
	size := uint64(binary.LittleEndian.Uint32(c.page[32:]))
	blocks := binary.LittleEndian.Uint32(c.page[36:])
	switch {
	case info&longHeaderFlag == 0:
		return fmt.Errorf("WAL segment %s does not begin with a segment's header", c.name)
	case system != c.system:
		return fmt.Errorf("WAL segment %s is of another cluster: system identifier %d instead of %d", c.name, system, c.system)
	case size != c.size:
		return fmt.Errorf("WAL segment %s says a segment size of %d bytes instead of %d", c.name, size, c.size)
	case blocks != pageSize:
		return fmt.Errorf("WAL segment %s has blocks of %d bytes; only servers built with %d are supported", c.name, blocks, pageSize)
	}
	return nil
}
