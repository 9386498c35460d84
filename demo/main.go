// Command demo shows pgsnap on a throwaway cluster: a backup is taken while
// pgbench runs, the original is damaged, and the restored copy's books balance.
// Everything that it makes is taken away again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pgsnap/internal/pgtest"
)

func main() {
	program := flag.String("pgsnap", "bin/pgsnap", "the pgsnap to show")
	server := flag.String("server", "debian-15", "the PostgreSQL to use: 10 to 18, or debian-15")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *program, *server); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is the stage: a cluster in a directory of its own, and pgsnap set up for it.
type demo struct {
	ctx     context.Context
	lab     *pgtest.Lab
	cluster *pgtest.Cluster
	program string
	config  string
}

func run(ctx context.Context, program, name string) (err error) {
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	server, err := pgtest.FindServer(name)
	if err != nil {
		return err
	}
	lab, err := pgtest.NewLab()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	d := &demo{ctx: ctx, lab: lab, program: program}
	if err := d.build(server); err != nil {
		return err
	}
	return d.play()
}

// build makes a cluster whose parts lie in three places.
func (d *demo) build(server pgtest.Server) (err error) {
	d.say("A cluster of PostgreSQL %d, with pg_wal and a tablespace in places of their own", server.Major)
	d.cluster, err = d.lab.NewCluster(d.ctx, server, pgtest.Options{
		DataDir: d.lab.Path("original", "data"), WALDir: d.lab.Path("original", "wal"),
	})
	if err != nil {
		return err
	}
	if err := d.cluster.Start(d.ctx); err != nil {
		return err
	}
	if err := d.cluster.CreateTablespace(d.ctx, "fast", d.lab.Path("original", "fast disk")); err != nil {
		return err
	}
	if err := pgtest.InitBench(d.ctx, d.cluster.Instance, pgtest.BenchOptions{Scale: 5, Tablespace: "fast"}); err != nil {
		return err
	}
	d.config = d.lab.Path("pgsnap.toml")
	text := fmt.Sprintf("catalog = %q\n[cluster.demo]\ndsn = %q\n", d.lab.Path("catalog"), d.cluster.DSN())
	d.note("the whole configuration, %s:", d.config)
	d.note("%s", text)
	return os.WriteFile(d.config, []byte(text), 0o644)
}

func (d *demo) play() error {
	d.say("pgbench changes its books all the time; a backup is taken meanwhile")
	load, err := pgtest.StartBench(d.cluster.Instance, 2)
	if err != nil {
		return err
	}
	defer load.Kill()
	if err := d.pause(2 * time.Second); err != nil {
		return err
	}
	if err := d.pgsnap("take"); err != nil {
		return err
	}
	if err := d.pause(time.Second); err != nil {
		return err
	}
	result, err := load.Stop()
	if err != nil {
		return err
	}
	d.note("pgbench committed %d transactions before, during and after it", result.Transactions)
	if err := d.pgsnap("list"); err != nil {
		return err
	}

	d.say("Disaster: the original is killed, and its tables are overwritten")
	if err := d.cluster.Crash(d.ctx); err != nil {
		return err
	}
	if err := d.damage(); err != nil {
		return err
	}

	d.say("The copy: restored, recovered by the backup's own WAL, started")
	copy := d.lab.Path("copy")
	if err := d.pgsnap("restore", "latest", "--to", copy, "--start"); err != nil {
		return err
	}
	if err := d.compare(copy); err != nil {
		return err
	}

	d.say("Nothing is left")
	if err := d.pgsnap("release", copy); err != nil {
		return err
	}
	id, err := d.latest()
	if err != nil {
		return err
	}
	return d.pgsnap("delete", id)
}

// damage overwrites every table of the original with noise.
func (d *demo) damage() error {
	damaged := 0
	for _, dir := range []string{filepath.Join(d.cluster.DataDir, "base"), d.lab.Path("original", "fast disk")} {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			damaged++
			return os.WriteFile(path, []byte("noise"), 0o600)
		})
		if err != nil {
			return err
		}
	}
	d.note("%d files overwritten in %s", damaged, d.lab.Path("original"))
	return nil
}

// compare adds up the books of the copy. Each transaction changes all four by
// the same amount, so half a transaction would show.
func (d *demo) compare(copy string) error {
	data := filepath.Join(copy, "data")
	var restored struct {
		Port            int    `json:"port"`
		SocketDirectory string `json:"socket_directory"`
	}
	// The same facts that restore --json prints are in the server's own file.
	lines, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return err
	}
	fields := strings.Split(string(lines), "\n")
	restored.SocketDirectory = fields[4]
	if _, err := fmt.Sscan(fields[3], &restored.Port); err != nil {
		return err
	}
	instance, err := pgtest.Attach(data, restored.SocketDirectory, restored.Port, "postgres")
	if err != nil {
		return err
	}
	conn, err := instance.Connect(d.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(d.ctx)) }()
	balances, err := pgtest.ReadBalances(d.ctx, conn)
	if err != nil {
		return err
	}
	d.note("accounts %d · tellers %d · branches %d · history %d", balances.Accounts, balances.Tellers, balances.Branches, balances.History)
	if !balances.Agree() || balances.Accounts == 0 {
		return errors.New("the books of the copy do not balance")
	}
	d.note("the books balance")
	return instance.Stop(d.ctx, pgtest.Fast)
}

func (d *demo) latest() (string, error) {
	cmd := d.command("show", "latest", "--json")
	output, err := cmd.Output()
	if err != nil {
		return "", err
	}
	var backup struct {
		ID string `json:"id"`
	}
	return backup.ID, json.Unmarshal(output, &backup)
}

func (d *demo) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(d.ctx, d.program, args...)
	cmd.Env = append(os.Environ(), "PGSNAP_CONFIG="+d.config)
	return cmd
}

// pgsnap runs a command for the audience.
func (d *demo) pgsnap(args ...string) error {
	fmt.Printf("\n  $ pgsnap %s\n", strings.Join(args, " "))
	output, err := d.command(args...).CombinedOutput()
	d.note("%s", output)
	if err != nil {
		return fmt.Errorf("pgsnap %s: %w", args[0], err)
	}
	return nil
}

func (d *demo) pause(length time.Duration) error {
	select {
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	case <-time.After(length):
		return nil
	}
}

// say prints a heading, note what belongs to it.
func (d *demo) say(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }

func (d *demo) note(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Printf("    %s\n", strings.TrimRight(line, "\n"))
	}
}
