package restore

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pgsnap/internal/fault"
)

const (
	// maxSocketPath is what fits into sockaddr_un (unix(7)).
	maxSocketPath = 107
	portsTried    = 1000
)

// planServer decides on the copy's port and socket, and that its user can reach
// it.
func (r *restoring) planServer() error {
	server, destination := r.backup.Server, r.copy.Destination
	r.result.Destination = destination
	r.result.DataDirectory = r.layout.data
	r.result.Log = filepath.Join(destination, logName)
	port, err := strconv.Atoi(server.Settings["port"])
	if err != nil {
		return fmt.Errorf("backup %s: port %q: %w", r.backup.ID, server.Settings["port"], err)
	}
	switch {
	case r.options.Port != 0:
		port = r.options.Port
	case r.options.Isolate:
		if port, err = r.freePort(port); err != nil {
			return err
		}
	}
	r.result.Port = port
	r.result.SocketDirectory, _, _ = strings.Cut(server.Settings["unix_socket_directories"], ",")
	if r.options.Isolate {
		if r.result.SocketDirectory, err = socketDirectory(destination); err != nil {
			return err
		}
	}
	if port < 1 || port > 1<<16-1 {
		return fault.New(fault.Usage, "ports are 1 to 65535", "there is no port %d", port)
	}
	if r.options.Start {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		return checkReachable(destination, server.OwnerUID, server.OwnerGID)
	}
	return nil
}

// freePort is the first port from the original's on that no server stands on,
// be it by TCP, in a usual place of sockets, or in another copy's.
func (r *restoring) freePort(from int) (int, error) {
	sockets := strings.Split(r.backup.Server.Settings["unix_socket_directories"], ",")
	sockets = append(sockets, "/var/run/postgresql", "/tmp")
	copies, err := r.Catalog.Copies()
	if err != nil {
		return 0, err
	}
	for _, other := range copies {
		sockets = append(sockets, filepath.Join(other.Destination, socketName))
	}
	for port := from; port < from+portsTried && port < 1<<16; port++ {
		taken := slices.ContainsFunc(sockets, func(dir string) bool {
			return exists(filepath.Join(strings.TrimSpace(dir), fmt.Sprintf(".s.PGSQL.%d", port)))
		})
		if !taken && checkPort(port) == nil {
			return port, nil
		}
	}
	return 0, fault.New(fault.Server, "name a free one with --port", "no port from %d on is free", from)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func checkPort(port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fault.Wrap(err, fault.Busy, "name a free one with --port, or leave it out", "port %d", port)
	}
	return listener.Close()
}

func socketDirectory(destination string) (string, error) {
	dir := filepath.Join(destination, socketName)
	if len(dir)+len("/.s.PGSQL.65535.lock") > maxSocketPath {
		return "", fault.New(fault.Usage, fmt.Sprintf("choose a destination of at most %d bytes", maxSocketPath-len("/socket/.s.PGSQL.65535.lock")),
			"the path of the copy's unix socket below %s is too long", destination)
	}
	return dir, nil
}
