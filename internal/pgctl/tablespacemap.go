package pgctl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MappedTablespace is one line of a tablespace_map.
type MappedTablespace struct {
	OID  uint32
	Path string
}

// escapesBackslash tells whether a server of that major version escapes
// backslashes in tablespace_map (from 14; before, only line breaks were).
func escapesBackslash(major int) bool { return major >= 14 }

// maxMapPath is MAXPGPATH: what the server reads a line of the map into.
const maxMapPath = 1024

// ParseTablespaceMap reads a tablespace_map as a server of that major version
// does (read_tablespace_map in xlogrecovery.c, before 15 in xlog.c).
func ParseTablespaceMap(data []byte, major int) ([]MappedTablespace, error) {
	var tablespaces []MappedTablespace
	var line strings.Builder
	escaped := false
	for _, c := range data {
		lineBreak := c == '\n' || c == '\r'
		switch {
		case lineBreak && !escaped:
			if line.Len() == 0 && major >= 14 {
				continue // the LF of CR LF
			}
			if line.Len() == 0 {
				return nil, errors.New("tablespace_map: it holds an empty line or ends its lines with CR LF")
			}
			tablespace, err := parseMapLine(line.String())
			if err != nil {
				return nil, err
			}
			tablespaces = append(tablespaces, tablespace)
			line.Reset()
		case c == '\\' && !escaped:
			escaped = true
			continue
		default:
			// Before 14 a backslash stands for itself unless a line break follows.
			if escaped && !lineBreak && !escapesBackslash(major) {
				line.WriteByte('\\')
				if c == '\\' {
					continue // the second one may itself precede a line break
				}
			}
			line.WriteByte(c)
		}
		escaped = false
	}
	if line.Len() > 0 || escaped {
		return nil, errors.New("tablespace_map: its last line is not complete")
	}
	return tablespaces, nil
}

func parseMapLine(line string) (MappedTablespace, error) {
	oid, path, found := strings.Cut(line, " ")
	number, err := strconv.ParseUint(oid, 10, 32)
	if !found || err != nil || number == 0 || path == "" || len(line) >= maxMapPath {
		return MappedTablespace{}, fmt.Errorf("tablespace_map: %q is no tablespace and path", line)
	}
	return MappedTablespace{OID: uint32(number), Path: path}, nil
}

// FormatTablespaceMap writes a tablespace_map for a server of that major
// version; no tablespaces give nil, for no file at all.
func FormatTablespaceMap(tablespaces []MappedTablespace, major int) ([]byte, error) {
	var data []byte
	for _, tablespace := range tablespaces {
		path := tablespace.Path
		if !escapesBackslash(major) && strings.HasSuffix(path, `\`) {
			return nil, fmt.Errorf("tablespace %d: PostgreSQL %d cannot read back a tablespace path that ends with a backslash: %q", tablespace.OID, major, path)
		}
		if _, err := parseMapLine(fmt.Sprintf("%d %s", tablespace.OID, path)); err != nil {
			return nil, err // the server would read something else, or a part
		}
		data = strconv.AppendUint(data, uint64(tablespace.OID), 10)
		data = append(data, ' ')
		for _, c := range []byte(path) {
			if c == '\n' || c == '\r' || c == '\\' && escapesBackslash(major) {
				data = append(data, '\\')
			}
			data = append(data, c)
		}
		data = append(data, '\n')
	}
	return data, nil
}
