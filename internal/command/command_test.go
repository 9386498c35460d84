package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgsnap/internal/command"
	"pgsnap/internal/pgtest"
)

func TestOutput(t *testing.T) {
	out, err := command.Run(t.Context(), []string{"sh", "-c", "echo said; echo complained >&2"})
	pgtest.Check(t, err)
	if string(out) != "said\n" {
		t.Errorf("standard output is %q", out)
	}
}

// Whatever a shell would act on arrives as it is.
func TestNoShell(t *testing.T) {
	made := filepath.Join(t.TempDir(), "made")
	args := []string{"printf", `%s\0`, "$HOME", "`touch " + made + "`", "$(touch " + made + ")", "; touch " + made, "*", "a b", "", "'", `"`, "\n", "--", "é"}
	out, err := command.Run(t.Context(), args)
	pgtest.Check(t, err)
	if want := strings.Join(args[2:], "\x00") + "\x00"; string(out) != want {
		t.Errorf("the program got %q, want %q", out, want)
	}
	if _, err := os.Stat(made); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a shell was at work")
	}
}

func TestLanguage(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("LANGUAGE", "de")
	out, err := command.Run(t.Context(), []string{"sh", "-c", `echo "$LC_ALL"`})
	pgtest.Check(t, err)
	if string(out) != "C\n" {
		t.Errorf("LC_ALL is %q", out)
	}
}

func TestWithout(t *testing.T) {
	t.Setenv("PGHOST", "elsewhere")
	t.Setenv("PGHOSTADDR", "stays")
	out, err := command.Run(t.Context(), []string{"env"}, command.Without("PGHOST", "LC_ALL"))
	pgtest.Check(t, err)
	env := "\n" + string(out)
	for text, want := range map[string]bool{"\nPGHOST=": false, "\nLC_ALL=": false, "\nPGHOSTADDR=stays\n": true, "\nPATH=": true} {
		if strings.Contains(env, text) != want {
			t.Errorf("%q in the environment: %v, want %v", text, !want, want)
		}
	}
}

func TestFailure(t *testing.T) {
	for name, test := range map[string]struct {
		args     []string
		exitCode int
		want     string
	}{
		"says why":     {[]string{"sh", "-c", "echo ' no such pool ' >&2; exit 3"}, 3, ": no such pool"},
		"says nothing": {[]string{"sh", "-c", "exit 3"}, 3, ": exit status 3"},
		"killed":       {[]string{"sh", "-c", "kill -9 $$"}, -1, ": signal: killed"},
		"not there":    {[]string{"/no/such/program", "now"}, -1, "/no/such/program now: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := command.Run(t.Context(), test.args)
			var failure *command.Error
			if !errors.As(err, &failure) {
				t.Fatalf("error is %v", err)
			}
			if failure.ExitCode != test.exitCode {
				t.Errorf("exit code %d, want %d", failure.ExitCode, test.exitCode)
			}
			if said := err.Error(); !strings.Contains(said, test.want) || !strings.HasPrefix(said, strings.Join(test.args, " ")) {
				t.Errorf("says %q, want the arguments and %q", said, test.want)
			}
		})
	}
	_, err := command.Run(t.Context(), []string{"/no/such/program"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not lead to its cause", err)
	}
}

// What a failed program printed is still returned.
func TestOutputOfFailure(t *testing.T) {
	out, err := command.Run(t.Context(), []string{"sh", "-c", "echo partial; exit 1"})
	if err == nil || string(out) != "partial\n" {
		t.Errorf("output %q, error %v", out, err)
	}
}

func TestCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the window was closed")
	cancel(why)
	made := filepath.Join(t.TempDir(), "made")
	if _, err := command.Run(ctx, []string{"touch", made}); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("the program ran")
	}
}

// TestCancelled ends programs that have children of their own. None outlives
// the call, and the error says why it was ended.
func TestCancelled(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		grace  time.Duration
	}{
		"alone":                  {`echo $$ >&3; exec sleep 60`, time.Minute},
		"with a child":           {`sleep 60 & echo $! >&3; echo $$ >&3; wait`, time.Minute},
		"with a grandchild":      {`sh -c 'sleep 60 & echo $! >&3; wait' & echo $! >&3; wait`, time.Minute},
		"deaf to SIGTERM":        {`trap '' TERM; echo $$ >&3; while :; do sleep 0.05; done`, 100 * time.Millisecond},
		"deaf grandchild":        {`sh -c "trap '' TERM; echo \$\$ >&3; while :; do sleep 0.05; done" & wait`, 100 * time.Millisecond},
		"silent deaf grandchild": {`sh -c "trap '' TERM; echo \$\$ >&3; while :; do sleep 0.05; done" >/dev/null 2>&1 & wait`, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pids, err := os.Create(filepath.Join(t.TempDir(), "pids"))
			pgtest.Check(t, err)
			defer pids.Close()
			// The program writes the process ids that the test watches.
			tell := func(cmd *exec.Cmd) { cmd.ExtraFiles, cmd.WaitDelay = []*os.File{pids}, test.grace }
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("the window was closed")
			go func() {
				defer cancel(why)
				for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
					if said, err := os.ReadFile(pids.Name()); err == nil && bytes.Count(said, []byte("\n")) >= strings.Count(test.script, ">&3") {
						return
					}
				}
			}()
			begin := time.Now()
			_, err = command.Run(ctx, []string{"sh", "-c", test.script}, tell)
			if !errors.Is(err, why) || !strings.HasSuffix(err.Error(), why.Error()) {
				t.Errorf("error is %v", err)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			assertEnded(t, pids.Name())
		})
	}
}

func assertEnded(t *testing.T, list string) {
	t.Helper()
	said, err := os.ReadFile(list)
	pgtest.Check(t, err)
	fields := strings.Fields(string(said))
	if len(fields) == 0 {
		t.Fatal("the program did not tell its process ids")
	}
	for _, field := range fields {
		pid, err := strconv.Atoi(field)
		pgtest.Check(t, err)
		pgtest.Eventually(t, 5*time.Second, func() error {
			if state, err := os.ReadFile("/proc/" + field + "/stat"); err == nil && !bytes.Contains(state, []byte(") Z ")) {
				return fmt.Errorf("process %d still runs", pid)
			}
			return nil
		})
	}
}

// A signal to our own group, such as Ctrl-C's, does not reach the program.
func TestGroup(t *testing.T) {
	out, err := command.Run(t.Context(), []string{"sh", "-c", "ps -o pgid= -p $$; echo $$"})
	pgtest.Check(t, err)
	fields := strings.Fields(string(out))
	if len(fields) != 2 || fields[0] != fields[1] {
		t.Errorf("group and process are %q", fields)
	}
}

func TestAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	out, err := command.Run(t.Context(), []string{"sh", "-c", "id -u; id -g; id -G; pwd"},
		command.As(&syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{4242}}, "/"))
	pgtest.Check(t, err)
	if want := "65534\n65534\n65534 4242\n/\n"; string(out) != want {
		t.Errorf("it is %q, want %q", out, want)
	}
}
