package zfs

import (
	"context"
	"strings"
)

// value is a property's value and where it comes from, as zfs-get(8) has it:
// "local", "received", "default", "inherited from X", "temporary", "-".
type value struct{ text, source string }

// own tells whether the thing itself has the property.
func (v value) own() bool { return v.source == "local" || v.source == "received" }

// properties are those of one dataset or snapshot.
type properties map[string]value

// ownText is a property's value where the thing itself has it.
func (p properties) ownText(name string) string {
	if v := p[name]; v.own() {
		return v.text
	}
	return ""
}

// thing is a dataset or snapshot.
type thing struct {
	name       string
	properties properties
}

// get asks for properties of the things named by args, which may hold options of
// zfs-get(8) too. With an error come those that were found.
func (t tool) get(ctx context.Context, names []string, args ...string) ([]thing, error) {
	out, err := t.zfs(ctx, append([]string{"get", "-Hp", "-o", "name,property,value,source"}, append(args[:len(args):len(args)], names...)...)...)
	return parse(string(out)), err
}

// parse reads lines of NAME, PROPERTY, VALUE and SOURCE. A value, such as a mount
// point, may hold tabs and newlines: it goes on until there is a source.
func parse(out string) []thing {
	var things []thing
	record := ""
	for line := range strings.Lines(out) {
		record += line
		fields := strings.Split(strings.TrimSuffix(record, "\n"), "\t")
		last := len(fields) - 1
		if last < 3 || !isSource(fields[last]) {
			continue
		}
		record = ""
		if len(things) == 0 || things[len(things)-1].name != fields[0] {
			things = append(things, thing{fields[0], properties{}})
		}
		things[len(things)-1].properties[fields[1]] = value{strings.Join(fields[2:last], "\t"), fields[last]}
	}
	return things
}

func isSource(text string) bool {
	switch text {
	case "-", "local", "received", "default", "temporary":
		return true
	}
	return strings.HasPrefix(text, "inherited from ")
}
