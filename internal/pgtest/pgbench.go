package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// BenchOptions says how pgbench's tables are made.
type BenchOptions struct {
	Scale           int    // units of 100,000 accounts, about 15 MB each; 1 if zero
	Tablespace      string // of the tables
	IndexTablespace string // of the indexes
}

// InitBench makes pgbench's tables in the database postgres, with the distribution's pgbench, whatever the server's version.
func InitBench(ctx context.Context, i *Instance, o BenchOptions) error {
	args := []string{"-i", "-q", "-s", strconv.Itoa(max(o.Scale, 1))}
	if o.Tablespace != "" {
		args = append(args, "--tablespace="+o.Tablespace)
	}
	if o.IndexTablespace != "" {
		args = append(args, "--index-tablespace="+o.IndexTablespace)
	}
	cmd, err := i.pgbench(ctx, args...)
	if err != nil {
		return err
	}
	_, err = run(cmd)
	return err
}

func (i *Instance) pgbench(ctx context.Context, args ...string) (*exec.Cmd, error) {
	program, err := Tool("pgbench")
	if err != nil {
		return nil, err
	}
	cmd := i.account.command(ctx, "/", program, append(append(i.clientArgs(), args...), "postgres")...)
	if i.Password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+i.Password)
	}
	return cmd, nil
}

// BenchRun is a pgbench that writes in the background.
type BenchRun struct {
	child          *child
	stdout, stderr bytes.Buffer
}

// BenchResult is what pgbench reports at its end.
type BenchResult struct {
	Transactions int64   // committed
	TPS          float64 // transactions a second, without the time to connect
}

// StartBench starts pgbench's TPC-B-like load with a number of clients. Stop it; it is killed with our process.
func StartBench(i *Instance, clients int) (*BenchRun, error) {
	cmd, err := i.pgbench(context.Background(), "-n", "-c", strconv.Itoa(clients), "-j", "1", "-T", "86400")
	if err != nil {
		return nil, err
	}
	bench := &BenchRun{}
	cmd.Stdout, cmd.Stderr = &bench.stdout, &bench.stderr
	if bench.child, err = startChild(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	// Until pgbench has set up its alarm, the signal by which Stop ends it would kill it.
	err = waitFor(context.Background(), 30*time.Second, func() error {
		select {
		case <-bench.child.done:
			return nil // Stop tells why
		default:
			return catches(cmd.Process.Pid, syscall.SIGALRM)
		}
	})
	if err != nil {
		bench.Kill()
		return nil, fmt.Errorf("start pgbench: %w\n%s", err, bench.stderr.String())
	}
	return bench, nil
}

// catches returns an error while a process has no handler for a signal.
func catches(pid int, signal syscall.Signal) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		text, ok := strings.CutPrefix(line, "SigCgt:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err == nil && mask>>(uint(signal)-1)&1 == 1 {
			return nil
		}
	}
	return fmt.Errorf("process %d has no handler for %v", pid, signal)
}

// Stop ends the load after the transactions under way and returns what was done. A client that was thrown out meanwhile (the server
// stopped or crashed), or any other error of pgbench, is an error.
func (b *BenchRun) Stop() (BenchResult, error) {
	// The alarm is what pgbench sets itself for the end of its time: it finishes and reports, as it would not on SIGINT.
	_ = b.child.cmd.Process.Signal(syscall.SIGALRM)
	select {
	case <-b.child.done:
	case <-time.After(time.Minute):
		_ = b.child.cmd.Process.Kill()
		<-b.child.done
		return BenchResult{}, errors.New("pgbench: a transaction did not end within a minute")
	}
	result := parseBench(b.stdout.String())
	complaints := strings.TrimSpace(b.stderr.String())
	if b.child.err != nil {
		return result, fmt.Errorf("pgbench: %w\n%s", b.child.err, complaints)
	}
	if strings.Contains(complaints, "error") || strings.Contains(complaints, "FATAL") {
		return result, fmt.Errorf("pgbench: %s", complaints)
	}
	return result, nil
}

// Kill ends the load at once, whatever its state, for a server that no longer answers.
func (b *BenchRun) Kill() {
	_ = b.child.cmd.Process.Kill()
	<-b.child.done
}

var (
	benchTransactions = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	benchTPS          = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
)

func parseBench(report string) BenchResult {
	var result BenchResult
	if match := benchTransactions.FindStringSubmatch(report); match != nil {
		result.Transactions, _ = strconv.ParseInt(match[1], 10, 64)
	}
	if match := benchTPS.FindStringSubmatch(report); match != nil {
		result.TPS, _ = strconv.ParseFloat(match[1], 64)
	}
	return result
}

// Balances are the four sums that every transaction of pgbench changes by the same amount: a copy in which they differ holds half a
// transaction.
type Balances struct {
	Accounts, Tellers, Branches, History int64
}

// Agree says whether the four sums are equal.
func (b Balances) Agree() bool {
	return b.Accounts == b.Tellers && b.Tellers == b.Branches && b.Branches == b.History
}

// ReadBalances sums up pgbench's tables in one statement, so in one snapshot of the database.
func ReadBalances(ctx context.Context, conn *pgx.Conn) (Balances, error) {
	var b Balances
	err := conn.QueryRow(ctx, `SELECT
		(SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts)::bigint,
		(SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers)::bigint,
		(SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches)::bigint,
		(SELECT coalesce(sum(delta), 0) FROM pgbench_history)::bigint`).
		Scan(&b.Accounts, &b.Tellers, &b.Branches, &b.History)
	if err != nil {
		return Balances{}, fmt.Errorf("pgbench's balances: %w", err)
	}
	return b, nil
}
