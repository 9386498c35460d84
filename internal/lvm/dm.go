package lvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel is asked about devices directly where a program would cost more than
// the answer, or must not be waited for while they are suspended. All of this is
// of linux/dm-ioctl.h.
const (
	controlPath = "/dev/mapper/control"

	headerSize = 312 // struct dm_ioctl
	specSize   = 40  // struct dm_target_spec
	dmType     = 0xfd

	devSuspend  = 6  // DM_DEV_SUSPEND_CMD; without the flag it resumes
	tableStatus = 12 // DM_TABLE_STATUS_CMD
	targetMsg   = 14 // DM_TARGET_MSG_CMD

	suspendFlag = 1 << 1  // DM_SUSPEND_FLAG
	fullFlag    = 1 << 8  // DM_BUFFER_FULL_FLAG
	noFlushFlag = 1 << 11 // DM_NOFLUSH_FLAG

	maxAnswer = 64 << 10
)

// control speaks to the device-mapper.
type control struct{ file *os.File }

func openControl() (control, error) {
	file, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	return control{file}, err
}

func (c control) close() { _ = c.file.Close() }

// ask sends a request about a device, by its name, and returns the data of the
// answer.
func (c control) ask(request uintptr, name string, flags uint32, data []byte) ([]byte, error) {
	buffer := make([]byte, maxAnswer)
	order := binary.NativeEndian
	order.PutUint32(buffer[0:], 4) // the interface's version, of which the rest may be 0
	order.PutUint32(buffer[12:], uint32(len(buffer)))
	order.PutUint32(buffer[16:], headerSize)
	order.PutUint32(buffer[28:], flags)
	if len(name) > longestDevice {
		return nil, fmt.Errorf("device name %s: %w", name, unix.ENAMETOOLONG)
	}
	copy(buffer[48:], name)
	copy(buffer[headerSize:], data)
	const readWrite = 3
	number := uintptr(readWrite<<30 | headerSize<<16 | dmType<<8 | request)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, c.file.Fd(), number, uintptr(unsafe.Pointer(&buffer[0]))); errno != 0 {
		return nil, fmt.Errorf("device-mapper, %s: %w", name, errno)
	}
	if order.Uint32(buffer[28:])&fullFlag != 0 {
		return nil, fmt.Errorf("device-mapper, %s: the answer is too long", name)
	}
	size, start := order.Uint32(buffer[12:]), order.Uint32(buffer[16:])
	if size > maxAnswer || start > size {
		return nil, nil
	}
	return buffer[start:size], nil
}

// target is one entry of a device's table, with its status.
type target struct{ kind, text string }

// status is the first target of a device's table. The pool behind a thin one is not
// made to write its metadata for that.
func (c control) status(name string) (target, error) {
	data, err := c.ask(tableStatus, name, noFlushFlag, nil)
	if err != nil {
		return target{}, err
	}
	if len(data) < specSize {
		return target{}, fmt.Errorf("device-mapper, %s: it has no table", name)
	}
	return target{zeroEnded(data[24:specSize]), strings.TrimSpace(zeroEnded(data[specSize:]))}, nil
}

func zeroEnded(field []byte) string {
	text, _, _ := bytes.Cut(field, []byte{0})
	return string(text)
}

// suspend stops a device: its file system is frozen, what was written is on it, and
// further writes wait for resume.
func (c control) suspend(name string) error {
	_, err := c.ask(devSuspend, name, suspendFlag, nil)
	return err
}

// resume lets a device go on; one that does so already is success.
func (c control) resume(name string) error {
	_, err := c.ask(devSuspend, name, 0, nil)
	return err
}

// message sends a message to a device's first target.
func (c control) message(name, text string) error {
	data := append(make([]byte, 8), text...) // struct dm_target_msg: the sector, and the text
	_, err := c.ask(targetMsg, name, 0, append(data, 0))
	return err
}
