package reflink_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"pgsnap/internal/pgtest"
)

// onOpen calls do whenever somebody opens a file, who waits until it has
// returned (fanotify(7)). do must not open the file itself.
func onOpen(t *testing.T, path string, do func()) (stop func()) {
	t.Helper()
	listener, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.FanotifyMark(listener, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, path)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		t.Skipf("this kernel does not let us wait for an open: %v", err)
	}
	pgtest.Check(t, err)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				answer(t, listener, do)
			}
		}
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		close(end)
		<-ended
		_ = unix.Close(listener) // which lets everybody go on who still waits
	}
	t.Cleanup(stop)
	return stop
}

// answer waits a moment for events and lets each go on.
func answer(t *testing.T, listener int, do func()) {
	const moment = 20 // milliseconds
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, moment); err != nil && !errors.Is(err, unix.EINTR) {
		t.Error(err)
	}
	buffer := make([]byte, 4096)
	length, err := unix.Read(listener, buffer)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		t.Error(err)
	}
	// struct fanotify_event_metadata: the length of the event at 0, the file at 16.
	for at := 0; at+24 <= length; at += int(binary.NativeEndian.Uint32(buffer[at:])) {
		do()
		file := binary.NativeEndian.Uint32(buffer[at+16:])
		response := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, file), unix.FAN_ALLOW)
		if _, err := unix.Write(listener, response); err != nil {
			t.Error(err)
		}
		_ = unix.Close(int(file))
	}
}
