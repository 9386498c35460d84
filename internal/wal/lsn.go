// Package wal knows PostgreSQL's write-ahead log as files: positions, segment
// names, page headers, and a backup's own start-to-stop copy of the segments.
package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the write-ahead log. Its text is PostgreSQL's own:
// two hexadecimal halves, as in 16/B374D848.
type LSN uint64

// ParseLSN reads PostgreSQL's text of a position.
func ParseLSN(text string) (LSN, error) {
	high, low, found := strings.Cut(text, "/")
	if found && len(high) > 0 && len(high) <= 8 && len(low) > 0 && len(low) <= 8 {
		h, errHigh := strconv.ParseUint(high, 16, 32)
		l, errLow := strconv.ParseUint(low, 16, 32)
		if errHigh == nil && errLow == nil {
			return LSN(h<<32 | l), nil
		}
	}
	return 0, fmt.Errorf("%q is not a WAL position (such as 16/B374D848)", text)
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText writes the text form, so that JSON holds "16/B374D848".
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the text form.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}
