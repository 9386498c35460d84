package pgctl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The majors on both sides of the change of escaping.
var mapMajors = []int{13, 14}

func TestTablespaceMap(t *testing.T) {
	both := []int{10, 13, 14, 18}
	old, new := []int{10, 13}, []int{14, 18}
	for name, test := range map[string]struct {
		majors []int
		text   string
		want   []MappedTablespace
	}{
		"none":             {both, "", nil},
		"one":              {both, "16384 /srv/a\n", []MappedTablespace{{16384, "/srv/a"}}},
		"two":              {both, "16384 /srv/a\n4294967295 /srv/b\n", []MappedTablespace{{16384, "/srv/a"}, {4294967295, "/srv/b"}}},
		"spaces":           {both, "16384 /srv/a b  c \n", []MappedTablespace{{16384, "/srv/a b  c "}}},
		"tab":              {both, "16384 /srv/a\tb\n", []MappedTablespace{{16384, "/srv/a\tb"}}},
		"not UTF-8":        {both, "16384 /srv/\xff\n", []MappedTablespace{{16384, "/srv/\xff"}}},
		"line feed":        {both, "16384 /srv/a\\\nb\n", []MappedTablespace{{16384, "/srv/a\nb"}}},
		"carriage return":  {both, "16384 /srv/a\\\rb\n", []MappedTablespace{{16384, "/srv/a\rb"}}},
		"ends in a break":  {both, "16384 /srv/a\\\n\n", []MappedTablespace{{16384, "/srv/a\n"}}},
		"a line in a name": {both, "16384 /srv/a\\\n16385 /b\n", []MappedTablespace{{16384, "/srv/a\n16385 /b"}}},

		"backslash, old":              {old, `16384 /srv/a\b` + "\n", []MappedTablespace{{16384, `/srv/a\b`}}},
		"two backslashes, old":        {old, `16384 /srv/a\\b` + "\n", []MappedTablespace{{16384, `/srv/a\\b`}}},
		"three backslashes, old":      {old, `16384 /srv/a\\\b` + "\n", []MappedTablespace{{16384, `/srv/a\\\b`}}},
		"backslash, break, old":       {old, "16384 /srv/a\\\\\nb\n", []MappedTablespace{{16384, "/srv/a\\\nb"}}},
		"backslash at the end, old":   {old, "16384 /srv/a\\\n16385 /srv/b\n", []MappedTablespace{{16384, "/srv/a\n16385 /srv/b"}}}, // as the server misreads it
		"CR for a line break, old":    {old, "16384 /srv/a\r16385 /srv/b\r", []MappedTablespace{{16384, "/srv/a"}, {16385, "/srv/b"}}},
		"backslash, new":              {new, `16384 /srv/a\\b` + "\n", []MappedTablespace{{16384, `/srv/a\b`}}},
		"backslash at the end, new":   {new, `16384 /srv/a\\` + "\n16385 /srv/b\n", []MappedTablespace{{16384, `/srv/a\`}, {16385, "/srv/b"}}},
		"backslash and break, new":    {new, "16384 /srv/a\\\\\\\nb\n", []MappedTablespace{{16384, "/srv/a\\\nb"}}},
		"needless escape, new":        {new, `16384 /srv/\a` + "\n", []MappedTablespace{{16384, "/srv/a"}}},
		"CR LF, new":                  {new, "16384 /srv/a\r\n16385 /srv/b\r\n", []MappedTablespace{{16384, "/srv/a"}, {16385, "/srv/b"}}},
		"empty lines, new":            {new, "\n\n16384 /srv/a\n\n", []MappedTablespace{{16384, "/srv/a"}}},
		"path begins with space, new": {new, "16384  /srv/a\n", []MappedTablespace{{16384, " /srv/a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, major := range test.majors {
				got, err := ParseTablespaceMap([]byte(test.text), major)
				if err != nil || !slices.Equal(got, test.want) {
					t.Errorf("%d reads %q, %v, want %q", major, fmt.Sprint(got), err, fmt.Sprint(test.want))
				}
			}
		})
	}
}

func TestRefusedTablespaceMap(t *testing.T) {
	for name, test := range map[string]struct {
		text   string
		majors []int
	}{
		"CR LF":               {"16384 /srv/a\r\n", []int{10, 13}},
		"empty line":          {"16384 /srv/a\n\n", []int{10, 13}},
		"last line cut":       {"16384 /srv/a\n16385 /srv", mapMajors},
		"cut after backslash": {"16384 /srv/a\\", mapMajors},
		"no line break":       {"16384 /srv/a", mapMajors},
		"no path":             {"16384\n", mapMajors},
		"empty path":          {"16384 \n", mapMajors},
		"no OID":              {" /srv/a\n", mapMajors},
		"OID 0":               {"0 /srv/a\n", mapMajors},
		"OID too large":       {"4294967296 /srv/a\n", mapMajors},
		"OID negative":        {"-1 /srv/a\n", mapMajors},
		"OID in hex":          {"0x10 /srv/a\n", mapMajors},
		"OID with a name":     {"16384a /srv/a\n", mapMajors},
		"only a path":         {"/srv/a\n", mapMajors},
		"longer than a path":  {"16384 /" + strings.Repeat("x", 1024) + "\n", mapMajors},
	} {
		t.Run(name, func(t *testing.T) {
			for _, major := range test.majors {
				if got, err := ParseTablespaceMap([]byte(test.text), major); err == nil || !strings.HasPrefix(err.Error(), "tablespace_map: ") {
					t.Errorf("%d reads %+v, %v", major, got, err)
				}
			}
		})
	}
}

func TestFormatTablespaceMap(t *testing.T) {
	for path, want := range map[string]struct{ old, new string }{
		"/srv/a":     {"/srv/a", "/srv/a"},
		"/srv/a b ":  {"/srv/a b ", "/srv/a b "},
		"/srv/a\nb":  {"/srv/a\\\nb", "/srv/a\\\nb"},
		"/srv/a\rb":  {"/srv/a\\\rb", "/srv/a\\\rb"},
		`/srv/a\b`:   {`/srv/a\b`, `/srv/a\\b`},
		"/srv/\\\nb": {"/srv/\\\\\nb", "/srv/\\\\\\\nb"},
		`/srv/a\`:    {"", `/srv/a\\`},
		"":           {"", ""},
		// What the server would cut without a word.
		"/" + strings.Repeat("x", 1023): {"", ""},
	} {
		for _, major := range mapMajors {
			line := want.new
			if major < 14 {
				line = want.old
			}
			data, err := FormatTablespaceMap([]MappedTablespace{{16384, path}}, major)
			switch {
			case line == "" && err == nil:
				t.Errorf("%d: %q is written %q", major, path, data)
			case line != "" && (err != nil || string(data) != "16384 "+line+"\n"):
				t.Errorf("%d: %q is written %q (%v), want %q", major, path, data, err, line)
			}
		}
	}
	if data, err := FormatTablespaceMap(nil, 15); err != nil || data != nil {
		t.Errorf("no tablespaces: %q, %v", data, err)
	}
	if data, err := FormatTablespaceMap([]MappedTablespace{{0, "/srv/a"}}, 15); err == nil {
		t.Errorf("OID 0: %q", data)
	}
}

// FuzzTablespaceMap: what can be read is written so that it reads the same, and
// once written it stays to the byte.
func FuzzTablespaceMap(f *testing.F) {
	for _, text := range []string{
		"", "16384 /srv/a\n", "1 /a\r\n2 /b\r\n", "1 /a\\\nb\n", "1 /a\\\\\n2 /b\n", "1 /a\\\\\\\n\n", "1 /\\\\x\n", "1  \\ \n", "1 \\\r\n", "4294967295 /\xff\x00\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, major := range mapMajors {
			parsed, err := ParseTablespaceMap(data, major)
			if err != nil {
				continue
			}
			written, err := FormatTablespaceMap(parsed, major)
			if err != nil {
				t.Errorf("%d: %q was read as %+v, which can't be written: %v", major, data, parsed, err)
				continue
			}
			again, err := ParseTablespaceMap(written, major)
			if err != nil || !slices.Equal(again, parsed) {
				t.Errorf("%d: %+v is written %q, which reads as %+v (%v)", major, parsed, written, again, err)
			}
		}
	})
}

// FuzzTablespacePath: any path that is written is read back.
func FuzzTablespacePath(f *testing.F) {
	for _, path := range []string{"/srv/a", "/a\nb", "/a\r\n", `/a\`, `/\\`, "/a\\\n", " ", "\n", "/\x00"} {
		f.Add(uint32(16384), path, "/other")
	}
	f.Fuzz(func(t *testing.T, oid uint32, first, second string) {
		tablespaces := []MappedTablespace{{oid, first}, {16385, second}}
		for _, major := range mapMajors {
			data, err := FormatTablespaceMap(tablespaces, major)
			if err != nil {
				continue
			}
			if again, err := ParseTablespaceMap(data, major); err != nil || !slices.Equal(again, tablespaces) {
				t.Errorf("%d: %+v is written %q, which reads as %+v (%v)", major, tablespaces, data, again, err)
			}
		}
	})
}
