// Command pgsnap takes and restores PostgreSQL backups by storage snapshots.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"pgsnap/internal/fault"
)

// cli is the command line. Each command has a file of its own.
type cli struct {
	Config  string `help:"Configuration file (default ${default_config}, if it exists)." env:"PGSNAP_CONFIG" placeholder:"FILE"`
	Catalog string `help:"Directory of the backups' records; overrides the configuration." env:"PGSNAP_CATALOG" placeholder:"DIR"`
	Cluster string `help:"Cluster of the configuration; may be left out where there is one." short:"c" env:"PGSNAP_CLUSTER" placeholder:"NAME"`
	JSON    bool   `help:"Print one JSON document instead of text." name:"json"`

	Take    takeCommand    `cmd:"" help:"Take a backup."`
	List    listCommand    `cmd:"" help:"List the backups."`
	Show    showCommand    `cmd:"" help:"Show one backup."`
	Restore restoreCommand `cmd:"" help:"Restore a backup into a directory."`
	Clones  clonesCommand  `cmd:"" help:"List the restored copies."`
	Release releaseCommand `cmd:"" help:"Remove a restored copy, or keep it for good."`
	Delete  deleteCommand  `cmd:"" help:"Delete backups with their snapshots."`
	Version versionCommand `cmd:"" help:"Print the version."`
	LVMHold lvmHoldCommand `cmd:"" name:"lvm-hold" hidden:""`
}

const description = `Takes restorable PostgreSQL backups in seconds by storage snapshots, and restores them.

Exit codes: ` + exitCodes

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs a command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var line cli
	helped := false
	parser, err := kong.New(&line,
		kong.Name("pgsnap"), kong.Description(description), kong.Writers(stdout, stderr),
		kong.Vars{"default_config": defaultConfig},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(int) { helped = true }),
	)
	if err != nil {
		return report(stderr, err) // the command line's own definition is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return report(stderr, fault.Wrap(err, fault.Usage, "pgsnap "+commandOf(err)+"--help shows what there is", ""))
	}
	app := &app{ctx: ctx, line: &line, out: stdout, errors: stderr, progress: newProgress(stderr)}
	err = parsed.Run(app)
	app.progress.clear()
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Canceled) {
		err = errors.Join(context.Cause(ctx), err)
	}
	return report(stderr, err)
}

// commandOf is the command that a wrong command line got as far as.
func commandOf(err error) string {
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		if command := wrong.Context.Command(); command != "" {
			return strings.Fields(command)[0] + " "
		}
	}
	return ""
}

// report prints an error and its remedy, and is the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "pgsnap: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "  hint: %s\n", hint)
	}
	return exitCode(err)
}
