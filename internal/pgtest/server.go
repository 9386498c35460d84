package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The majors that test/setup brings, and the major that Debian ships beside them with all its tools.
const (
	oldestMajor = 10
	newestMajor = 18
	debianMajor = 15
)

const debianName = "debian-15"

// errSetup ends every error about a missing server: a test must fail then, not be skipped unnoticed.
var errSetup = errors.New("run test/setup")

// Server is one build of PostgreSQL.
type Server struct {
	Name   string // the major, such as "15", or "debian-15" for the distribution's own
	Major  int
	BinDir string // holds postgres, initdb and pg_ctl; the other tools only for debian-15
}

// String returns the server's name.
func (s Server) String() string { return s.Name }

// Bin returns the path of one of the server's own programs, such as "postgres" or "pg_ctl".
func (s Server) Bin(program string) string { return filepath.Join(s.BinDir, program) }

// ServerNames returns the names of all servers that tests run on, oldest first, whether they are installed or not.
func ServerNames() []string {
	var names []string
	for major := oldestMajor; major <= newestMajor; major++ {
		names = append(names, strconv.Itoa(major))
		if major == debianMajor {
			names = append(names, debianName)
		}
	}
	return names
}

// FindServer returns the server of that name, or an error when it is not installed.
func FindServer(name string) (Server, error) {
	server := Server{Name: name}
	if name == debianName {
		server.Major, server.BinDir = debianMajor, toolDir
	} else {
		major, err := strconv.Atoi(name)
		if err != nil || major < oldestMajor || major > newestMajor {
			return Server{}, fmt.Errorf("no PostgreSQL %q is known to the tests", name)
		}
		cache, err := cacheDir()
		if err != nil {
			return Server{}, err
		}
		server.Major, server.BinDir = major, filepath.Join(cache, "postgresql", name, "bin")
	}
	if _, err := os.Stat(server.Bin("postgres")); err != nil {
		return Server{}, fmt.Errorf("PostgreSQL %s is not installed: %w: %w", name, err, errSetup)
	}
	return server, nil
}

// Servers returns every server that tests run on, oldest first. One that is missing is an error.
func Servers() ([]Server, error) {
	var servers []Server
	for _, name := range ServerNames() {
		server, err := FindServer(name)
		if err != nil {
			return nil, err
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// Majors returns the installed major versions, oldest first.
func Majors() []int {
	var majors []int
	for major := oldestMajor; major <= newestMajor; major++ {
		if _, err := FindServer(strconv.Itoa(major)); err == nil {
			majors = append(majors, major)
		}
	}
	return majors
}

// BinDir returns the directory with postgres, initdb and pg_ctl of a major version.
func BinDir(major int) (string, error) {
	server, err := FindServer(strconv.Itoa(major))
	return server.BinDir, err
}

const toolDir = "/usr/lib/postgresql/15/bin"

// Tool returns the path of one of the distribution's client tools (pgbench, psql, pg_controldata, pg_waldump, …), which are of
// version 15: pg_controldata and pg_waldump read only that version's files, pgbench and psql speak to every server.
func Tool(program string) (string, error) {
	path := filepath.Join(toolDir, program)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %w", err, errSetup)
	}
	return path, nil
}

// cacheDir is where test/setup puts the servers; it has the same rule.
func cacheDir() (string, error) {
	if dir := os.Getenv("PGSNAP_TEST_CACHE"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/cache/pgsnap", nil // the user postgres cannot enter /root
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where are the test servers: %w", err)
	}
	return filepath.Join(dir, "pgsnap"), nil
}
