package pgtest

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
)

// child is a program that runs beside us and does not outlive us: the kernel sends it a signal when our process dies, however it
// dies.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
	err  error         // how it ended, valid after done
}

// startChild starts cmd. dying is the signal that the kernel sends to it at our death.
func startChild(cmd *exec.Cmd, dying syscall.Signal) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = dying
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel means the thread, not the process, that started the child: this one stays until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}
