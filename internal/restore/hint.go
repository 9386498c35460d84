package restore

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"pgsnap/internal/catalog"
	"pgsnap/internal/pgctl"
)

// The commands that people are told to run, ready to be pasted into a shell.

// StartCommand starts a copy's server.
func (r *Result) StartCommand() string {
	return asOwner(r.DataDirectory, program(r.BinDirectory, "pg_ctl"), "start", "-D", r.DataDirectory, "-l", r.Log)
}

// ConnectCommand connects to a copy's server.
func (r *Result) ConnectCommand() string {
	return asOwner(r.DataDirectory, "psql", "-h", r.SocketDirectory, "-p", strconv.Itoa(r.Port))
}

// ReleaseCommand removes a copy.
func (r *Result) ReleaseCommand() string { return shellWords("pgsnap", "release", r.Destination) }

// StopCommand stops a copy's server.
func StopCommand(record *catalog.Copy) string {
	data := filepath.Join(record.Destination, dataName)
	return asOwner(data, program(record.BinDirectory, "pg_ctl"), "stop", "-D", data)
}

func program(dir, name string) string { return filepath.Join(dir, name) }

// asOwner is a command for the owner of a data directory: PostgreSQL's programs
// refuse to run as root, and peer authentication wants the owner.
func asOwner(data string, words ...string) string {
	uid, _, err := pgctl.Owner(data)
	if err != nil || os.Geteuid() != 0 {
		return shellWords(words...)
	}
	name := "#" + strconv.Itoa(uid)
	if account, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = account.Username
	}
	return shellWords(append([]string{"runuser", "-u", name, "--"}, words...)...)
}

// shellWords quotes words so that a shell reads them as they are.
func shellWords(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		odd := strings.IndexFunc(word, func(r rune) bool {
			return !strings.ContainsRune("/._-+:=@%", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) >= 0
		if odd || word == "" {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		quoted[i] = word
	}
	return strings.Join(quoted, " ")
}
