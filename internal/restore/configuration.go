package restore

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pgsnap/internal/snap"
)

// placeOf is where a configuration file of the original is in the copy, or ""
// where the copy has none.
func (r *restoring) placeOf(original string) string {
	data := r.backup.Server.DataDirectory
	if original == "" {
		return ""
	}
	for _, saved := range r.backup.ConfigFiles {
		if saved == original && !snap.IsBelow(original, data) {
			return r.outside(original)
		}
	}
	if relative, err := filepath.Rel(data, original); err == nil && filepath.IsLocal(relative) {
		return filepath.Join(r.layout.data, relative)
	}
	return ""
}

// putSavedFiles puts the saved configuration files back: those from outside the
// data directory below config/, under the path that they had, and those that were
// links in the data directory in the links' stead.
func (r *restoring) putSavedFiles(d dataDirectory) error {
	for _, path := range r.backup.ConfigFiles {
		content, err := r.Catalog.File(r.backup, filepath.Join(configName, path))
		if err != nil {
			return err
		}
		if relative, err := filepath.Rel(r.backup.Server.DataDirectory, path); err == nil && filepath.IsLocal(relative) {
			if err := d.write(relative, content); err != nil {
				return err
			}
			continue
		}
		if err := r.putOutside(d, path, content); err != nil {
			return err
		}
	}
	return nil
}

// putOutside writes a file below config/, with the directories to it and those
// that it includes, which may have held no file.
func (r *restoring) putOutside(d dataDirectory, path string, content []byte) error {
	if err := r.makeOutside(d, filepath.Dir(path)); err != nil {
		return err
	}
	for _, line := range includeLine.FindAllSubmatch(content, -1) {
		if strings.EqualFold(string(line[2]), "include_dir") {
			included := string(line[4])
			if !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(path), included)
			}
			if err := r.makeOutside(d, included); err != nil {
				return err
			}
		}
	}
	place := r.outside(path)
	if err := os.WriteFile(place, r.redirectIncludes(content), 0o600); err != nil {
		return err
	}
	return chown(place, d)
}

// outside is where a path from outside the data directory is kept in the copy.
func (r *restoring) outside(path string) string {
	return filepath.Join(r.copy.Destination, configName, path)
}

// makeOutside makes a directory below config/.
func (r *restoring) makeOutside(d dataDirectory, path string) error {
	place := r.outside(path)
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	for made := place; made != r.copy.Destination; made = filepath.Dir(made) {
		if err := chown(made, d); err != nil {
			return err
		}
	}
	return nil
}

// includeLine is a line that includes other files: what is before the path, the
// directive, and the path.
var includeLine = regexp.MustCompile(`(?mi)^(\s*(include|include_if_exists|include_dir)(\s*=?\s*)')([^'\n]*)`)

// redirectIncludes makes absolute includes lead to the saved files.
func (r *restoring) redirectIncludes(content []byte) []byte {
	return includeLine.ReplaceAllFunc(content, func(line []byte) []byte {
		parts := includeLine.FindSubmatch(line)
		included := string(parts[4])
		isDirectory := strings.EqualFold(string(parts[2]), "include_dir")
		if filepath.IsAbs(included) && (isDirectory || slices.Contains(r.backup.ConfigFiles, filepath.Clean(included))) {
			return append(slices.Clone(parts[1]), r.outside(included)...)
		}
		return line
	})
}

var dataDirectoryLine = regexp.MustCompile(`(?mi)^\s*data_directory\b`)

// putMainFile makes sure that the data directory has a postgresql.conf, and that
// no file says that the data directory is another, which would be the live one.
func (r *restoring) putMainFile(d dataDirectory) error {
	main := r.placeOf(r.backup.Server.Settings["config_file"])
	own := filepath.Join(r.layout.data, "postgresql.conf")
	override := r.heading() + format([]setting{{"data_directory", r.layout.data}})
	if main != "" && main != own {
		return d.write("postgresql.conf", []byte(r.heading()+format([]setting{{"include", main}})+override))
	}
	for _, path := range r.backup.Server.ConfigFiles {
		content, err := os.ReadFile(r.placeOf(path))
		if err != nil {
			continue // not of the copy; it says nothing to its server
		}
		if dataDirectoryLine.Match(content) {
			return d.appendTo("postgresql.conf", override)
		}
	}
	return nil
}
