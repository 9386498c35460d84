package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mountsBelow returns the mount points below dir, in the order in which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		// The kernel writes these characters as octal.
		const pointField = 4
		fields := strings.Fields(line)
		if len(fields) <= pointField {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[pointField])
		if strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

// thawBelow thaws the frozen file systems below dir.
func thawBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, point := range points {
		file, err := os.Open(point)
		if err != nil {
			continue // its unmounting will tell
		}
		const fithaw = 0xc0045878 // FITHAW of linux/fs.h: EINVAL where nothing is frozen
		_ = unix.IoctlSetInt(int(file.Fd()), fithaw, 0)
		_ = file.Close()
	}
	return nil
}

// unmountBelow unmounts everything below dir, last mounted first, and detaches the loop devices over files below dir.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var failures []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := unmount(points[i]); err != nil {
			failures = append(failures, err)
		}
	}
	if err := detachBelow(dir); err != nil {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// unmount unmounts one file system. One that stays in use is taken out of sight, so that the rest can go on, and reported with its
// users.
func unmount(point string) error {
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // EINVAL: not mounted any more
	}
	err = fmt.Errorf("unmount %s: %w%s", point, err, usersOf(point))
	return errors.Join(err, unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH))
}

// usersOf names the processes that work in, or hold open a file in, a directory.
func usersOf(dir string) string {
	pids, err := processes()
	if err != nil {
		return ""
	}
	var users []string
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range append(links, fmt.Sprintf("/proc/%d/cwd", pid)) {
			if target, err := os.Readlink(link); err == nil && (target == dir || strings.HasPrefix(target, dir+"/")) {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				users = append(users, fmt.Sprintf("%d (%s: %s)", pid, strings.TrimSpace(string(name)), target))
				break
			}
		}
	}
	if users == nil {
		return ""
	}
	return ", in use by " + strings.Join(users, ", ")
}

// loopsBelow returns the loop devices over files below dir, such as /dev/loop3.
func loopsBelow(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(backing), dir+"/") {
			devices = append(devices, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return devices, nil
}

func detachBelow(dir string) error {
	devices, err := loopsBelow(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, device := range devices {
		if err := detach(device); err != nil {
			failures = append(failures, fmt.Errorf("detach %s: %w", device, err))
		}
	}
	return errors.Join(failures...)
}

func detach(device string) error {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	err = unix.IoctlSetInt(int(file.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		err = nil // detached meanwhile
	}
	return errors.Join(err, file.Close())
}
