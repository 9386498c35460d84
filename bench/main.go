// Command bench measures pgsnap beside the bare commands that it stands in for:
// psql with btrfs subvolume snapshot for a backup, the same with pg_ctl for a
// restore. Both are measured by turns in one run, so what disturbs one disturbs
// the other. The limits that the table names are those that pgsnap is held to.
//
// It needs root, and test/setup. Everything that it makes is taken away again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pgsnap/internal/pgtest"
)

const (
	gigabyte = 1e9
	// spare is room beside a cluster for WAL, and for what pgbench overwrites
	// while a snapshot keeps it.
	spare = 3 * gigabyte
	// smallest leaves room for pgbench's tables in the data directory.
	smallest = 0.3
)

type options struct {
	pgsnap string
	sizes  []float64 // gigabytes, ascending
	rounds int
	json   string
}

func main() {
	options, err := parse()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, options)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	program := flag.String("pgsnap", "bin/pgsnap", "the pgsnap to measure")
	sizes := flag.String("sizes", "0.5,2,6", "sizes of the data directory in GB")
	rounds := flag.Int("rounds", 5, "rounds for each size and load")
	file := flag.String("json", "", "also write every single figure to this `FILE`")
	flag.Parse()
	o := options{rounds: *rounds, json: *file}
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if o.rounds < 1 {
		return o, errors.New("--rounds: at least one")
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || size < smallest || size > 1000 {
			return o, fmt.Errorf("--sizes: %q is not a size from %g to 1000 GB", text, smallest)
		}
		o.sizes = append(o.sizes, size)
	}
	slices.Sort(o.sizes)
	o.sizes = slices.Compact(o.sizes)
	var err error
	if o.pgsnap, err = filepath.Abs(*program); err != nil {
		return o, err
	}
	_, err = os.Stat(o.pgsnap)
	return o, err
}

// checkDisk says what is needed and refuses to begin without it.
func checkDisk(sizes []float64) error {
	needed := int64(slices.Max(sizes) * gigabyte) // pg_basebackup's copy of the largest
	for _, size := range sizes {
		needed += int64(size*gigabyte + spare)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &stat); err != nil {
		return fmt.Errorf("%s: %w", os.TempDir(), err)
	}
	free := int64(stat.Bavail) * stat.Bsize
	say("needs up to %.0f GB in %s, where %.0f GB are free", float64(needed)/gigabyte, os.TempDir(), float64(free)/gigabyte)
	if free < needed {
		return fmt.Errorf("%s has too little room: free some, set TMPDIR to a directory elsewhere, or give smaller --sizes", os.TempDir())
	}
	return nil
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount Btrfs: run it as root")
	}
	if err := checkDisk(o.sizes); err != nil {
		return err
	}
	r, err := measure(ctx, o)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	if o.json != "" {
		return r.save(o.json)
	}
	return nil
}

// measure makes the clusters, measures, and takes everything away.
func measure(ctx context.Context, o options) (r *report, err error) {
	server, err := pgtest.FindServer("debian-15")
	if err != nil {
		return nil, err
	}
	lab, err := pgtest.NewLab()
	if err != nil {
		return nil, err
	}
	defer func() {
		if ctx.Err() != nil { // what failed then, did so because of it
			err = errors.New("interrupted")
		}
		err = errors.Join(err, lab.Close())
	}()
	r = newReport(o)
	var contests []*contest
	for _, size := range o.sizes {
		say("making a cluster of %g GB", size)
		c, err := newContest(ctx, lab, server, size, o.pgsnap)
		if err != nil {
			return nil, err
		}
		contests = append(contests, c)
	}
	largest := contests[len(contests)-1].site
	if r.Server, err = largest.cluster.Query(ctx, "SHOW server_version"); err != nil {
		return nil, err
	}
	for _, load := range []bool{false, true} {
		if err := rounds(ctx, contests, o.rounds, load); err != nil {
			return nil, err
		}
	}
	for _, c := range contests {
		r.Figures = append(r.Figures, c.idle, c.busy)
	}
	say("pg_basebackup of %g GB, for contrast", largest.gb)
	r.BaseBackup, err = largest.baseBackup(ctx)
	return r, err
}

// say tells of the progress; the figures alone go to the standard output.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
