package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sweep takes away the labs of processes that were killed before they could close them, and returns their directories. A living
// process holds a lock on its lab, which the kernel gives back at its death: a lab that is locked, or that belongs to another user,
// is left alone.
func Sweep() ([]string, error) {
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("look for abandoned labs: %w", err)
	}
	var swept []string
	var failures []error
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), labPrefix) {
			continue
		}
		dir := filepath.Join(os.TempDir(), entry.Name())
		done, err := sweepLab(dir)
		if err != nil {
			failures = append(failures, fmt.Errorf("abandoned lab %s: %w", dir, err))
		}
		if done {
			swept = append(swept, dir)
		}
	}
	return swept, errors.Join(failures...)
}

func sweepLab(dir string) (bool, error) {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false, nil // gone meanwhile, or not a lab
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return false, nil
	}
	// Without a lock file it is a lab just being made, or was never one.
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false, nil
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil // its process lives
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	if err := demolish(real); err != nil {
		return false, err
	}
	return true, nil
}

// lockLab makes the lock file of a new lab. It is locked before it appears under its name, so no sweep ever finds it unlocked.
func lockLab(dir string) (*os.File, error) {
	temporary := filepath.Join(dir, lockName+".new")
	lock, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the lab: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the lab %s: %w", dir, err), lock.Close())
	}
	if err := os.Rename(temporary, filepath.Join(dir, lockName)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the lab: %w", err), lock.Close())
	}
	return lock, nil
}

// demolish stops the servers whose data directory lies below dir, unmounts what is mounted below it, and removes it. It removes
// nothing while something is still mounted there, which may be somebody's real files.
func demolish(dir string) error {
	var failures []error
	if err := thawBelow(dir); err != nil {
		failures = append(failures, err)
	}
	if err := stopServersBelow(dir); err != nil {
		failures = append(failures, err)
	}
	if err := unmountBelow(dir); err != nil {
		return errors.Join(append(failures, err)...)
	}
	// The lock goes last: a sweep that is killed leaves a lab that the next one finds.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Join(append(failures, err)...)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), lockName) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) == 0 {
		failures = append(failures, os.RemoveAll(dir))
	}
	return errors.Join(failures...)
}
