package pgctl

import (
	"io"
	"os"
	"os/user"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// account is an operating system's user that root does something as.
type account struct{ uid, gid int }

// peerAccount is the account whose peer authentication opens the database
// user's door, if pgsnap is root and there is one.
func peerAccount(databaseUser string) (account, bool) {
	if os.Geteuid() != 0 {
		return account{}, false
	}
	found, err := user.Lookup(databaseUser)
	if err != nil {
		return account{}, false
	}
	uid, errUID := strconv.Atoi(found.Uid)
	gid, errGID := strconv.Atoi(found.Gid)
	return account{uid, gid}, errUID == nil && errGID == nil && uid != 0
}

// do runs work with the effective user and group of the account. Only one thread
// changes, and it ends with its goroutine; nothing else of the process sees it.
func (a account) do(work func() error) error {
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if unix.Gettid() == os.Getpid() {
			// The main thread does not end before the process does. While this
			// goroutine keeps it, another one is on another thread.
			defer runtime.UnlockOSThread()
			err = a.do(work)
			return
		}
		if err = a.become(); err == nil {
			err = work()
		}
	}()
	<-done
	return err
}

// become changes the calling thread alone; the syscall package's own functions
// would change every thread.
func (a account) become() error {
	const keep = ^uintptr(0)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, keep, uintptr(a.gid), keep},
		{unix.SYS_SETRESUID, keep, uintptr(a.uid), keep},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

// ReadFileAsOwner reads a file that the server names, with the rights of the
// data directory's owner and no more: a database superuser, who sets such names,
// must not be able to read by root's hand.
func (f Facts) ReadFileAsOwner(path string) (data []byte, err error) {
	if os.Geteuid() != 0 || f.OwnerUID == 0 {
		return os.ReadFile(path)
	}
	var file *os.File
	err = account{f.OwnerUID, f.OwnerGID}.do(func() error {
		file, err = os.Open(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}
