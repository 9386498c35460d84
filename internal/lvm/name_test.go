package lvm

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgsnap/internal/snap"
)

func TestDeviceNames(t *testing.T) {
	for _, c := range [][3]string{
		{"vg", "lv", "vg-lv"}, {"vg-a", "da-ta", "vg--a-da--ta"}, {"a--b", "c-", "a----b-c--"}, {"a.b+c_d", "0", "a.b+c_d-0"},
	} {
		if name := deviceName(c[0], c[1]); name != c[2] {
			t.Errorf("%s/%s is %s, not %s", c[0], c[1], name, c[2])
		}
		if group, name, layer := splitDevice(c[2]); group != c[0] || name != c[1] || layer != "" {
			t.Errorf("%s is %s/%s %s", c[2], group, name, layer)
		}
	}
	if group, name, layer := splitDevice("vg--a-pool-tpool"); group != "vg-a" || name != "pool" || layer != "tpool" {
		t.Errorf("%s/%s %s", group, name, layer)
	}
}

func TestSnapshotNames(t *testing.T) {
	const snapshot = "pgsnap-20260102-030405-0a1b"
	if name := snapshotName(snapshot, "vg", "tdata"); name != snapshot+"-tdata" {
		t.Error(name)
	}
	seen := map[string]bool{}
	for _, volume := range []string{strings.Repeat("x", 100), strings.Repeat("x", 99) + "y", strings.Repeat("-", 60)} {
		name := snapshotName(snapshot, "group-of-a-name", volume)
		if device := deviceName("group-of-a-name", name); len(device)+longestLayer > longestDevice || len(name) > longestName {
			t.Errorf("%s is too long", name)
		}
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
	if one, two := cloneName("copy", "vg/a"), cloneName("copy", "vg/b"); one == two {
		t.Errorf("both clones are %s", one)
	}
}

func FuzzTags(f *testing.F) {
	f.Add("main", "a b\n%@")
	f.Add("", strings.Repeat("0123456789", 700))
	f.Fuzz(func(t *testing.T, one, two string) {
		metadata := snap.Metadata{"one": one, "two": two}
		tags := metadataTags(metadata)
		for _, tag := range tags {
			if len(tag) > longestTag || strings.HasPrefix(tag, "-") {
				t.Errorf("tag %q", tag)
			}
			if strings.IndexFunc(tag, func(r rune) bool { return odd(r) && !strings.ContainsRune("=!:&#", r) }) >= 0 {
				t.Errorf("tag %q", tag)
			}
		}
		if back := MetadataOf(append([]string{mark, "other"}, tags...)); !maps.Equal(back, metadata) {
			t.Errorf("%q came back as %q", metadata, back)
		}
		if replaced := replacedTags(append(tags, mark, ownTag(tagCut, "x")[0]), metadata); len(replaced) != len(tags) {
			t.Errorf("%q of %q are replaced", replaced, tags)
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]float64{"10G": 10 << 30, "100": 100 << 20, "1.5t": 1.5 * (1 << 40), "512b": 512, "2s": 1024} {
		if size, err := ParseSize(text); err != nil || size != want {
			t.Errorf("%s is %v, %v", text, size, err)
		}
	}
	if _, err := ParseSize("much"); err == nil {
		t.Error("much is a size")
	}
}

func TestFileSystemText(t *testing.T) {
	for _, f := range []fileSystem{{"ext4", nil}, {"xfs", []string{"noatime", "context=system_u:object_r:postgresql_db_t:s0"}}} {
		if back := parseFileSystem(f.String()); back.kind != f.kind || !slices.Equal(back.options, f.options) {
			t.Errorf("%+v came back as %+v", f, back)
		}
	}
}
