// Package command is the one way in which pgsnap runs a program: an argument
// list and never a shell, LC_ALL=C, a process group of its own that ends with
// the context, and an error that carries what the program said.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a program may take to end after its context is done
// before it is killed.
const stopGrace = 10 * time.Second

// Error is a program that could not be started or did not succeed.
type Error struct {
	// Args is the program and its arguments.
	Args []string
	// ExitCode is -1 where the program did not start or was ended by a signal.
	ExitCode int
	// Stderr is what it said, trimmed.
	Stderr string
	// Err is the cause as the operating system gave it.
	Err error
}

func (e *Error) Error() string {
	said := e.Stderr
	if said == "" {
		said = e.Err.Error()
	}
	return fmt.Sprintf("%s: %s", strings.Join(e.Args, " "), said)
}

func (e *Error) Unwrap() error { return e.Err }

// Option changes how a program is run.
type Option func(*exec.Cmd)

// As runs the program as another user with that user's groups, in dir, a
// directory which that user can enter.
func As(user *syscall.Credential, dir string) Option {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = user
		cmd.Dir = dir
	}
}

// Without removes variables from the program's environment.
func Without(names ...string) Option {
	return func(cmd *exec.Cmd) {
		kept := cmd.Env[:0]
		for _, entry := range cmd.Env {
			name, _, _ := strings.Cut(entry, "=")
			if !slices.Contains(names, name) {
				kept = append(kept, entry)
			}
		}
		cmd.Env = kept
	}
}

// Run runs args and returns its standard output. When ctx is done, the
// program's process group gets SIGTERM, and what is left of it SIGKILL as soon as
// the program has ended, or after ten seconds.
func Run(ctx context.Context, args []string, options ...Option) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	for _, option := range options {
		option(cmd)
	}
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	failure := &Error{Args: args, ExitCode: -1, Stderr: strings.TrimSpace(stderr.String()), Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		failure.ExitCode = exit.ExitCode()
	}
	if cause := context.Cause(ctx); cause != nil {
		failure.Err, failure.Stderr = cause, ""
		if cmd.Process != nil { // os/exec kills the program alone, not its children
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	return stdout.Bytes(), failure
}
