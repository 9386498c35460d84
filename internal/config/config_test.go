package config_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"pgsnap/internal/config"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/pgtest"
)

const localDSN = "host=/var/run/postgresql user=postgres"

func parse(t *testing.T, text string) config.Config {
	t.Helper()
	parsed, err := config.Parse(text)
	pgtest.Check(t, err)
	return parsed
}

func TestDefaults(t *testing.T) {
	want := config.Config{
		Catalog:  "/var/lib/pgsnap",
		Clusters: map[string]config.Cluster{"main": {DSN: localDSN, Mode: pgctl.Auto, Driver: "auto"}},
	}
	for name, text := range map[string]string{
		"nothing":     "",
		"comment":     "# nothing yet\n",
		"empty":       "catalog = ''\n[cluster.main]\ndsn = ''\nmode = ''\ndriver = ''\n[storage.reflink]\n",
		"no clusters": "[cluster]\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := parse(t, text); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestThreeLines(t *testing.T) {
	got := parse(t, "catalog = \"/backup\"\n[cluster.shop]\ndsn = \"host=/run/pg port=5433\"\n")
	want := config.Config{
		Catalog:  "/backup",
		Clusters: map[string]config.Cluster{"shop": {DSN: "host=/run/pg port=5433", Mode: pgctl.Auto, Driver: "auto"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

const everyKey = `
catalog = "/c"
[cluster.one]
dsn = "host=/run/one"
mode = "exclusive"
driver = "btrfs"
bin_directory = "/opt/pg/bin"
[cluster.Two-2_b]
mode = "non-exclusive"
[storage.reflink]
directory = "/srv/snapshots"
[storage.btrfs]
directory = "/pool/snapshots"
[storage.lvm]
size = "20%ORIGIN"
max_data_percent = 80
max_metadata_percent = 75.5
instant = true
[storage.zfs]
clones = "tank/copies"
`

func TestEveryKey(t *testing.T) {
	want := config.Config{
		Catalog: "/c",
		Clusters: map[string]config.Cluster{
			"one":     {DSN: "host=/run/one", Mode: pgctl.Exclusive, Driver: "btrfs", BinDirectory: "/opt/pg/bin"},
			"Two-2_b": {DSN: localDSN, Mode: pgctl.NonExclusive, Driver: "auto"},
		},
		Storage: config.Storage{
			Reflink: config.Directory{Directory: "/srv/snapshots"}, Btrfs: config.Directory{Directory: "/pool/snapshots"},
			LVM: config.LVM{Size: "20%ORIGIN", MaxDataPercent: 80, MaxMetadataPercent: 75.5, Instant: true},
			ZFS: config.ZFS{Clones: "tank/copies"},
		},
	}
	if got := parse(t, everyKey); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	assertNamesEveryKey(t, everyKey)
}

// The example shows every key and is a configuration that works.
func TestExample(t *testing.T) {
	path := filepath.Join("..", "..", "pgsnap.toml.example")
	data, err := os.ReadFile(path)
	pgtest.Check(t, err)
	if _, err := config.Load(path); err != nil {
		t.Error(err)
	}
	assertNamesEveryKey(t, string(data))
}

// assertNamesEveryKey fails the test for each key of the configuration that a
// text does not set. One in a comment, as an example shows a default, counts.
func assertNamesEveryKey(t *testing.T, text string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(strings.TrimLeft(line, "# \t")))
	}
	for _, key := range keys(reflect.TypeFor[config.Config](), "") {
		table, name, _ := cutLast(key)
		header := "[" + table + "]"
		at := 0
		if table != "" {
			at = 1 + slices.IndexFunc(lines, func(line string) bool {
				return header == line || table == "cluster" && strings.HasPrefix(line, "[cluster.")
			})
			if at == 0 {
				t.Errorf("there is no %s", header)
				continue
			}
		}
		set := slices.ContainsFunc(lines[at:], func(line string) bool {
			found, _, isKey := strings.Cut(line, "=")
			return isKey && strings.TrimSpace(found) == name
		})
		if !set {
			t.Errorf("%s is not set below %s", name, header)
		}
	}
}

func cutLast(key string) (table, name string, found bool) {
	if at := strings.LastIndexByte(key, '.'); at >= 0 {
		return key[:at], key[at+1:], true
	}
	return "", key, false
}

// keys are all keys of a table; those of every cluster stand below "cluster".
func keys(table reflect.Type, prefix string) []string {
	var all []string
	for field := range table.Fields() {
		name, kind := prefix+field.Tag.Get("toml"), field.Type
		if kind.Kind() == reflect.Map {
			kind = kind.Elem()
		}
		if kind.Kind() == reflect.Struct {
			all = append(all, keys(kind, name+".")...)
		} else {
			all = append(all, name)
		}
	}
	return all
}

func TestUnknownKeys(t *testing.T) {
	for text, want := range map[string]string{
		`catalogue = "/c"`:                            `there is no key "catalogue"; did you mean "catalog"?`,
		`catlog = "/c"`:                               `there is no key "catlog"; did you mean "catalog"?`,
		`xyzzy = 1`:                                   `there is no key "xyzzy"`,
		"[clusters.main]\ndsn = ''":                   `there is no key "clusters"; did you mean "cluster"?`,
		"[cluster.main]\ndns = ''":                    `there is no key "cluster.main.dns"; did you mean "cluster.main.dsn"?`,
		"[cluster.main]\nbindirectory = '/b'":         `there is no key "cluster.main.bindirectory"; did you mean "cluster.main.bin_directory"?`,
		"[cluster.main]\nretention = 7":               `there is no key "cluster.main.retention"`,
		"cluster.main.modus = 'auto'":                 `did you mean "cluster.main.mode"?`,
		"[cluster.main.dsnn]\nx = 1":                  `there is no key "cluster.main.dsnn"; did you mean "cluster.main.dsn"?`,
		"[storage.refink]\ndirectory = '/d'":          `there is no key "storage.refink"; did you mean "storage.reflink"?`,
		"[storage.btrfs]\ndir = '/d'":                 `there is no key "storage.btrfs.dir"`,
		"[storage.btrfs]\ndirectry = '/d'":            `there is no key "storage.btrfs.directry"; did you mean "storage.btrfs.directory"?`,
		"[storage.btrfs]\ndirectories = ['/d', '/e']": `did you mean "storage.btrfs.directory"?`,
		"[strage.btrfs]\ndirectory = '/d'":            `there is no key "strage"; did you mean "storage"?`,
		"[Storage.Btrfs]\ndirectry = '/d'":            `did you mean "Storage.Btrfs.directory"?`,
		"\"\" = 1":                                    `there is no key`,
		"[cluster.main]\n\"\" = 1":                    `there is no key`,
	} {
		t.Run(text, func(t *testing.T) {
			_, err := config.Parse(text)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
			if err != nil && !strings.Contains(want, "did you mean") && strings.Contains(err.Error(), "did you mean") {
				t.Errorf("%v: nothing is near", err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`catalog = "backups"`:                                `catalog is not an absolute path: "backups"`,
		`catalog = "~/backups"`:                              `catalog is not an absolute path`,
		"[cluster.main]\nbin_directory = 'bin'":              `cluster.main.bin_directory is not an absolute path: "bin"`,
		"[cluster.a]\n[cluster.b]\nbin_directory = '../bin'": `cluster.b.bin_directory is not an absolute path`,
		"[storage.reflink]\ndirectory = './d'":               `storage.reflink.directory is not an absolute path`,
		"[storage.btrfs]\ndirectory = 'd'":                   `storage.btrfs.directory is not an absolute path`,
		"[storage.lvm]\nsize = '10 G'":                       `storage.lvm.size is a size such as 10G or a share such as 20%ORIGIN, not "10 G"`,
		"[storage.lvm]\nsize = '-1G'":                        `storage.lvm.size`,
		"[storage.lvm]\nsize = '50%'":                        `storage.lvm.size`,
		"[storage.lvm]\nsize = '0'":                          `storage.lvm.size`,
		"[storage.lvm]\nmax_data_percent = 101":              `storage.lvm.max_data_percent is from 1 to 100, not 101`,
		"[storage.lvm]\nmax_data_percent = nan":              `storage.lvm.max_data_percent`,
		"[storage.lvm]\nmax_metadata_percent = -1":           `storage.lvm.max_metadata_percent`,
		"[storage.zfs]\nclones = '/tank/copies'":             `storage.zfs.clones is a dataset such as tank/copies, not "/tank/copies"`,
		"[storage.zfs]\nclones = 'tank@now'":                 `storage.zfs.clones`,
		"[storage.zfs]\nclones = 'tank/'":                    `storage.zfs.clones`,
		"[cluster.main]\nmode = 'exclusiv'":                  `cluster main: mode is auto, non-exclusive or exclusive, not "exclusiv"`,
		"[cluster.main]\nmode = 'Auto'":                      `not "Auto"`,
		"[cluster.\"../etc\"]\n":                             `cluster "../etc": a name has`,
		"[cluster.\"\"]\n":                                   `cluster "": a name has`,
		"[cluster.\".hidden\"]\n":                            `cluster ".hidden"`,
		"[cluster.\"-rf\"]\n":                                `cluster "-rf"`,
		"[cluster.\"a b\"]\n":                                `cluster "a b"`,
		"[cluster.\"a/b\"]\n":                                `cluster "a/b"`,
		"[cluster.\"a\\nb\"]\n":                              `cluster "a\nb"`,
		"[cluster.\"é\"]\n":                                  `cluster "é"`,
		"[cluster." + strings.Repeat("n", 64) + "]\n":        `a name has`,
		"[[cluster]]\n":                                      "cluster is a table for each cluster",
		"[[cluster.main]]\n":                                 "main",
		"[[storage]]\n":                                      "storage",
		"storage = 5\n":                                      "storage",
		"catalog = 5":                                        "catalog",
		"cluster = 'main'":                                   "cluster is a table for each cluster",
		"Cluster = 5":                                        "cluster is a table for each cluster",
		"[cluster]\nmain = 'x'":                              "main",
		"[cluster.main]\ndsn = ['x']":                        "dsn",
		"catalog = '/a'\ncatalog = '/b'":                     "line 2",
		"catalog = /a":                                       "line 1",
		"[cluster.main":                                      "line 1",
		"catalog = \"\xff\"":                                 "UTF-8",
		"<?xml?>":                                            "line 1",
	} {
		t.Run(text, func(t *testing.T) {
			if got, err := config.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q; got %+v", err, want, got)
			}
		})
	}
}

func TestCluster(t *testing.T) {
	one := parse(t, "[cluster.shop]\n")
	several := parse(t, "[cluster.shop]\ndriver = 'btrfs'\n[cluster.Bank]\n[cluster.archive]\n")
	for name, test := range map[string]struct {
		config config.Config
		ask    string
		want   string
		kind   fault.Kind
		hint   string
	}{
		"the only one":      {one, "", "shop", 0, ""},
		"by its name":       {one, "shop", "shop", 0, ""},
		"another":           {one, "main", "", fault.NotFound, "name one with --cluster: shop"},
		"one of several":    {several, "shop", "shop", 0, ""},
		"none of several":   {several, "", "", fault.Usage, "name one with --cluster: Bank, archive, shop"},
		"no such":           {several, "sho", "", fault.NotFound, "name one with --cluster: Bank, archive, shop"},
		"in small letters":  {several, "bank", "", fault.NotFound, ""},
		"a path to another": {several, "../shop", "", fault.NotFound, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, cluster, err := test.config.Cluster(test.ask)
			if found != test.want || (err != nil) != (test.kind != 0) || fault.KindOf(err) != test.kind {
				t.Errorf("%q asked for: %q, %v", test.ask, found, err)
			}
			if err == nil && cluster != test.config.Clusters[found] {
				t.Errorf("cluster %+v", cluster)
			}
			if hint := fault.HintOf(err); test.hint != "" && hint != test.hint {
				t.Errorf("hint %q, want %q", hint, test.hint)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		t.Helper()
		path := filepath.Join(dir, "pgsnap.toml")
		pgtest.Check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	loaded, err := config.Load(write("[cluster.b]\n[cluster.a]\n"))
	pgtest.Check(t, err)
	if names := slices.Sorted(maps.Keys(loaded.Clusters)); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("clusters %q", names)
	}
	for name, path := range map[string]string{
		"missing":     filepath.Join(dir, "missing.toml"),
		"a directory": dir,
		"wrong":       write("catalogue = '/c'"),
	} {
		_, err := config.Load(path)
		if fault.KindOf(err) != fault.Usage || fault.HintOf(err) == "" || !strings.Contains(fmt.Sprint(err), path) {
			t.Errorf("%s: %v (%s)", name, err, fault.HintOf(err))
		}
	}
}

// Nobody has to write a configuration to begin with.
func TestLoadNothing(t *testing.T) {
	if _, err := os.Stat(config.DefaultPath); err == nil {
		t.Skipf("this host has %s", config.DefaultPath)
	}
	loaded, err := config.Load("")
	pgtest.Check(t, err)
	if name, cluster, err := loaded.Cluster(""); err != nil || name != "main" || cluster.DSN != localDSN {
		t.Errorf("cluster %q %+v, %v", name, cluster, err)
	}
}

// FuzzConfig looks for a text that is taken with a value which is not allowed,
// and for one that can't be told what is wrong.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", everyKey, "[cluster.main]\ndns=''", "catalogue=1", "\"\"=1", "[[cluster]]", "[cluster.a.b.c]\nd=1", "cluster.x=1",
		"Catalog='/x'", "[STORAGE.refink]\nd=1", "catalog.x=1", "storage={reflink={directory='/x', y=1}}", "[storage]\nreflink=[]",
		"[storage.lvm]\nsize='1.5g'\nmax_data_percent=nan\ninstant=true",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := config.Parse(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		if !filepath.IsAbs(got.Catalog) || len(got.Clusters) == 0 {
			t.Errorf("catalog %q, %d clusters", got.Catalog, len(got.Clusters))
		}
		for name, cluster := range got.Clusters {
			if name == "" || strings.ContainsAny(name, "/ \n\x00") || name[0] == '.' || cluster.DSN == "" || cluster.Driver == "" {
				t.Errorf("cluster %q: %+v", name, cluster)
			}
		}
		// Whatever is taken can be written down again.
		var written strings.Builder
		pgtest.Check(t, toml.NewEncoder(&written).Encode(got))
		if again, err := config.Parse(written.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v was read again as %+v (%v)", got, again, err)
		}
	})
}
