// Package config reads pgsnap.toml.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/agext/levenshtein"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
)

// DefaultPath is read where no other file is named; it need not exist.
const DefaultPath = "/etc/pgsnap/pgsnap.toml"

const (
	defaultCatalog = "/var/lib/pgsnap"
	defaultCluster = "main"
	defaultDSN     = "host=/var/run/postgresql user=postgres"
)

// AutoDriver lets the storage of each path choose the driver.
const AutoDriver = "auto"

// Config is the whole configuration, with its defaults in place.
type Config struct {
	// Catalog is the directory of all backups' records.
	Catalog string `toml:"catalog"`
	// Clusters by name.
	Clusters map[string]Cluster `toml:"cluster"`
	Storage  Storage            `toml:"storage"`
}

// Cluster is one PostgreSQL cluster on this host.
type Cluster struct {
	// DSN is a connection string as libpq takes it.
	DSN string `toml:"dsn"`
	// Mode is how the server is put into backup mode.
	Mode pgctl.Mode `toml:"mode"`
	// Driver is auto or a driver's name.
	Driver string `toml:"driver"`
	// BinDirectory holds the server's programs, where pgsnap does not find them.
	BinDirectory string `toml:"bin_directory"`
}

// Storage is what drivers need to know.
type Storage struct {
	Reflink Directory `toml:"reflink"`
	Btrfs   Directory `toml:"btrfs"`
	LVM     LVM       `toml:"lvm"`
	ZFS     ZFS       `toml:"zfs"`
}

// Directory is where a driver keeps snapshots, if not beside the volumes.
type Directory struct {
	Directory string `toml:"directory"`
}

// Load reads a configuration file. Without a path it is DefaultPath, and where
// that does not exist there is one cluster: the local default one.
func Load(path string) (Config, error) {
	optional := path == ""
	if optional {
		path = DefaultPath
	}
	data, err := os.ReadFile(path)
	if err != nil && !(optional && errors.Is(err, fs.ErrNotExist)) {
		return Config{}, fault.Wrap(err, fault.Usage, "name a file that exists with --config or PGSNAP_CONFIG", "configuration")
	}
	config, err := Parse(string(data))
	if err != nil {
		return config, fault.Wrap(err, fault.Usage, "pgsnap.toml.example shows every key", "configuration %s", path)
	}
	return config, nil
}

// Parse reads the text of a configuration and fills in the defaults.
func Parse(text string) (Config, error) {
	var config Config
	meta, err := toml.Decode(text, &config)
	if err != nil {
		return config, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return config, unknownKey(unknown[0])
	}
	for _, key := range meta.Keys() {
		// The decoder takes anything for a table that has free names, and drops it.
		if len(key) == 1 && strings.EqualFold(key[0], "cluster") && meta.Type(key...) != "Hash" {
			return config, errors.New("cluster is a table for each cluster: [cluster.NAME]")
		}
	}
	if config.Catalog == "" {
		config.Catalog = defaultCatalog
	}
	if len(config.Clusters) == 0 {
		config.Clusters = map[string]Cluster{defaultCluster: {}}
	}
	for name, cluster := range config.Clusters {
		if !catalog.ValidCluster(name) {
			return config, fmt.Errorf("cluster %q: a name has letters, digits, and _ . - after the first", name)
		}
		if cluster.DSN == "" {
			cluster.DSN = defaultDSN
		}
		if cluster.Mode == "" {
			cluster.Mode = pgctl.Auto
		}
		if cluster.Driver == "" {
			cluster.Driver = AutoDriver
		}
		if !slices.Contains([]pgctl.Mode{pgctl.Auto, pgctl.NonExclusive, pgctl.Exclusive}, cluster.Mode) {
			return config, fmt.Errorf("cluster %s: mode is auto, non-exclusive or exclusive, not %q", name, cluster.Mode)
		}
		config.Clusters[name] = cluster
	}
	if err := errors.Join(config.Storage.LVM.check(), config.Storage.ZFS.check()); err != nil {
		return config, err
	}
	return config, config.checkPaths()
}

// checkPaths refuses relative directories: what they mean would change with the
// directory that pgsnap is run from.
func (c Config) checkPaths() error {
	paths := map[string]string{
		"catalog":                   c.Catalog,
		"storage.reflink.directory": c.Storage.Reflink.Directory,
		"storage.btrfs.directory":   c.Storage.Btrfs.Directory,
	}
	for name, cluster := range c.Clusters {
		paths["cluster."+name+".bin_directory"] = cluster.BinDirectory
	}
	for key, path := range paths {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s is not an absolute path: %q", key, path)
		}
	}
	return nil
}

// Cluster is the cluster of a name; without a name, the only one.
func (c Config) Cluster(name string) (string, Cluster, error) {
	var names []string
	for known, cluster := range c.Clusters {
		if known == name || name == "" && len(c.Clusters) == 1 {
			return known, cluster, nil
		}
		names = append(names, known)
	}
	slices.Sort(names)
	hint := "name one with --cluster: " + strings.Join(names, ", ")
	if name == "" {
		return "", Cluster{}, fault.New(fault.Usage, hint, "there are several clusters")
	}
	return "", Cluster{}, fault.New(fault.NotFound, hint, "there is no cluster %q in the configuration", name)
}

// unknownKey names the first part of a key that does not exist, and the nearest
// that does.
func unknownKey(key toml.Key) error {
	table := reflect.TypeFor[Config]()
	for depth, name := range key {
		if table.Kind() == reflect.Map { // of clusters, whose names are free
			table = table.Elem()
			continue
		}
		known := keysOf(table)
		if field, found := known[strings.ToLower(name)]; found { // as the decoder does
			table = field
			continue
		}
		message := fmt.Sprintf("there is no key %q", key[:depth+1].String())
		if best := nearest(name, slices.Sorted(maps.Keys(known))); best != "" {
			message += fmt.Sprintf("; did you mean %q?", strings.Join(append(slices.Clone(key[:depth]), best), "."))
		}
		return errors.New(message)
	}
	return fmt.Errorf("there is no key %q", key.String())
}

func nearest(name string, known []string) string {
	best, distance := "", len(name)/2+2
	for _, candidate := range known {
		if d := levenshtein.Distance(name, candidate, nil); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// keysOf are the keys of a table with the types of their values.
func keysOf(table reflect.Type) map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	if table.Kind() == reflect.Struct {
		for field := range table.Fields() {
			keys[field.Tag.Get("toml")] = field.Type
		}
	}
	return keys
}
