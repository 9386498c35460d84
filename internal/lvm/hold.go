package lvm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/fault"
)

// holdLimit is how long volumes are held at most.
const holdLimit = 10 * time.Second

// job is what a holder is told, as one line of JSON on its standard input.
type job struct {
	// Devices are to be suspended, by their device-mapper names.
	Devices []string
	// Messages are to be sent while they are.
	Messages []poolMessage
	// Wait for the end of the input before they go on again.
	Wait bool
	// Limit is when they go on whatever happens.
	Limit time.Duration
}

type poolMessage struct{ Device, Text string }

// What a holder answers, a line each; anything else is its error.
const (
	saidHeld     = "held"
	saidReleased = "released"
)

// Hold is the process that suspends devices and lets them go on, whatever becomes
// of the one that started it. It reads its job from the standard input, at whose
// end it is done, and returns its exit code.
//
// From the first suspend on it must not wait for any disk, since that may be on one
// of the devices: all of its memory is locked, and it runs no program.
func Hold([]string) int {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// The last to be killed for want of memory (proc_pid_oom_score_adj(5)).
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	if err := holdJob(os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(saidReleased)
	return 0
}

func holdJob(in io.Reader, out io.Writer) error {
	var j job
	input := bufio.NewReader(in)
	line, err := input.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &j)
	}
	if err != nil {
		return err
	}
	dm, err := openControl()
	if err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, input)
		close(ended)
	}()
	resume := func() error {
		var failures error
		for _, name := range j.Devices {
			failures = errors.Join(failures, dm.resume(name))
		}
		return failures
	}
	// Should a suspend hang, this is what ends the others.
	expired := make(chan struct{})
	deadline := time.AfterFunc(j.Limit, func() {
		_ = resume()
		close(expired)
	})
	err = dm.perform(j)
	if err == nil && j.Wait {
		_, err = fmt.Fprintln(out, saidHeld)
		select {
		case <-ended:
		case <-expired:
		}
	}
	err = errors.Join(err, resume())
	if !deadline.Stop() {
		err = errors.Join(err, fmt.Errorf("the volumes were held for longer than %v", j.Limit))
	}
	return err
}

// perform suspends the devices and sends the messages.
func (c control) perform(j job) error {
	for _, name := range j.Devices {
		if err := c.suspend(name); err != nil {
			return fmt.Errorf("suspend: %w", err)
		}
	}
	for _, m := range j.Messages {
		if err := c.message(m.Device, m.Text); err != nil {
			return fmt.Errorf("message %q: %w", m.Text, err)
		}
	}
	return nil
}

// held is volumes that are suspended by a holder, or were.
type held struct {
	cmd    *exec.Cmd
	input  io.Closer
	output *bufio.Reader
	job    job
}

// hold starts a holder. With Wait it returns when all volumes are suspended;
// otherwise when they were, and go on again. The holder is not run as other
// programs are: nothing may kill it.
func (d Driver) hold(ctx context.Context, j job) (*held, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	cmd := exec.Command(d.Holder[0], d.Holder[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &held{cmd: cmd, input: input, output: bufio.NewReader(output), job: j}
	if err := json.NewEncoder(input).Encode(j); err != nil {
		return nil, errors.Join(err, h.release())
	}
	if !j.Wait {
		return h, nil
	}
	if line, _ := h.output.ReadString('\n'); strings.TrimSpace(line) != saidHeld {
		return nil, errors.Join(holdError(line), h.release())
	}
	return h, nil
}

func holdError(said string) error {
	if said = strings.TrimSpace(said); said == "" {
		said = "the process that holds the volumes ended"
	}
	return fault.New(fault.Storage, "", "one instant over several volumes: %s", said)
}

// release lets the volumes go on and tells whether they were held all the time.
// Should the holder itself be gone, they are resumed from here.
func (h *held) release() error {
	_ = h.input.Close()
	line, _ := h.output.ReadString('\n')
	_ = h.cmd.Wait()
	if strings.TrimSpace(line) == saidReleased {
		return nil
	}
	dm, err := openControl()
	if err != nil {
		return errors.Join(holdError(line), err)
	}
	defer dm.close()
	for _, name := range h.job.Devices {
		err = errors.Join(err, dm.resume(name))
	}
	return errors.Join(holdError(line), err)
}
