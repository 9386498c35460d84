// Package restore turns a backup into a copy of its cluster: clones below a
// destination, the saved label, map, WAL and configuration in place, and a
// server started on it. The snapshots stay as they are, and nothing outside of
// the destination is written to.
package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"pgsnap/internal/catalog"
	"pgsnap/internal/fault"
	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
)

// Options are where and how a backup is restored.
type Options struct {
	// Destination is a directory that is empty or does not exist.
	Destination string
	// Tablespaces says where tablespaces go, by their old location; the others go
	// below the destination.
	Tablespaces map[string]string
	// Port is that of the copy; 0 is the original's, or the next one free.
	Port int
	// Isolate keeps the copy from meeting the original: its own port and socket
	// directory, no archiving, no replication.
	Isolate bool
	// Start starts the server and waits for the end of recovery.
	Start bool
	// StartTimeout bounds the wait.
	StartTimeout time.Duration
	// BinDirectory holds the server's programs, if they are not to be looked for.
	BinDirectory string
}

// Result is what was restored, as the restore command reports it.
type Result struct {
	Backup        string       `json:"backup"`
	Cluster       string       `json:"cluster"`
	Destination   string       `json:"destination"`
	DataDirectory string       `json:"data_directory"`
	Tablespaces   []Tablespace `json:"tablespaces"`
	Port          int          `json:"port"`
	// SocketDirectory is where the copy's unix socket is.
	SocketDirectory string `json:"socket_directory"`
	Isolated        bool   `json:"isolated"`
	// PID and Timeline are of the running server; without one PID is 0 and the
	// timeline is the backup's.
	PID      int                `json:"pid"`
	Timeline uint32             `json:"timeline"`
	Log      string             `json:"log"`
	Seconds  map[string]float64 `json:"seconds"`
	// BinDirectory holds the programs that start it; empty if none were found.
	BinDirectory string `json:"bin_directory,omitempty"`
}

// Tablespace is where a tablespace was and is.
type Tablespace struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Restorer restores backups of one catalog.
type Restorer struct {
	Catalog catalog.Catalog
	Drivers []snap.Driver
	// Progress is told of each step as it begins.
	Progress func(step string)
}

// restoring is one restore on its way.
type restoring struct {
	Restorer
	options Options
	backup  *snap.Backup
	copy    *catalog.Copy
	layout  layout
	result  *Result
}

// Restore restores a backup. On an error before the start nothing is left; a
// copy whose server does not start is left to be looked at.
func (r Restorer) Restore(ctx context.Context, b *snap.Backup, options Options) (*Result, error) {
	began := time.Now()
	if b.Status == snap.Lost {
		return nil, fault.New(fault.Storage, "restore another, and remove this one's record with: pgsnap delete --lost "+b.ID,
			"backup %s is lost: a snapshot of it was removed, has overflowed, or lies on storage that is not there", b.ID)
	}
	if b.Status != snap.Complete {
		return nil, fault.New(fault.Storage, "pgsnap list shows the backups that are complete", "backup %s is %s, not complete", b.ID, b.Status)
	}
	unlock, err := r.Catalog.LockShared(b)
	if err != nil {
		return nil, err
	}
	defer unlock()
	job := &restoring{Restorer: r, options: options, backup: b}
	job.result = &Result{
		Backup: b.ID, Cluster: b.Cluster, Isolated: options.Isolate, Timeline: b.Timeline,
		Tablespaces: []Tablespace{}, Seconds: map[string]float64{},
	}
	if err := job.plan(ctx); err != nil {
		return nil, err
	}
	err = job.build(ctx, began)
	var stays *kept
	if err != nil && !errors.As(err, &stays) {
		err = errors.Join(err, job.undo(ctx))
	}
	if err != nil {
		return nil, err
	}
	return job.result, nil
}

// plan checks all that can be checked before anything is made.
func (r *restoring) plan(ctx context.Context) (err error) {
	destination, err := resolveNew(r.options.Destination)
	if err != nil {
		return err
	}
	r.copy = catalog.NewCopy(r.backup, destination, time.Now())
	if err := r.checkApart(destination); err != nil {
		return err
	}
	if err := checkEmpty(destination); err != nil {
		return err
	}
	if r.layout, err = r.planLayout(destination); err != nil {
		return err
	}
	r.result.BinDirectory, err = pgctl.Programs(ctx, r.backup.Server.Major(), r.binDirectory())
	if err != nil && r.options.Start {
		return err
	}
	return r.planServer()
}

func (r *restoring) binDirectory() string {
	if r.options.BinDirectory != "" {
		return r.options.BinDirectory
	}
	return r.backup.Server.BinDirectory
}

func (r *restoring) build(ctx context.Context, began time.Time) error {
	step := func(name string, do func(context.Context) error) error {
		r.Progress(name)
		start := time.Now()
		err := do(ctx)
		r.result.Seconds[name] = time.Since(start).Seconds()
		if err == nil {
			err = context.Cause(ctx)
		}
		return err
	}
	if err := step("clone", r.clone); err != nil {
		return err
	}
	if err := step("prepare", r.prepare); err != nil {
		return err
	}
	r.copy.Complete, r.copy.BinDirectory = true, r.result.BinDirectory
	if err := r.Catalog.SaveCopy(r.copy); err != nil {
		return err
	}
	if r.options.Start {
		if err := step("start", r.start); err != nil {
			return err
		}
	} else if err := step("flush", r.flush); err != nil {
		return err
	}
	r.result.Seconds["total"] = time.Since(began).Seconds()
	return nil
}

// start hands the copy to its owner and starts the server. Its failure leaves
// the copy, unless the restore was cancelled.
func (r *restoring) start(ctx context.Context) error {
	data := r.layout.data
	server, err := pgctl.StartServer(ctx, pgctl.StartOptions{
		BinDirectory: r.result.BinDirectory, DataDirectory: data, Log: r.result.Log,
		Timeout: r.options.StartTimeout, Waiting: func() { r.Progress("recover") },
	})
	if err != nil && context.Cause(ctx) != nil {
		return errors.Join(context.Cause(ctx), pgctl.StopServer(context.WithoutCancel(ctx), r.result.BinDirectory, data))
	}
	if err != nil {
		return &kept{fault.Wrap(err, fault.Server,
			fmt.Sprintf("the copy is still there: start it by hand once the cause is mended, or remove it with: pgsnap release %s", r.copy.Destination),
			"restored to %s", r.copy.Destination)}
	}
	control, err := pgctl.ReadControlFile(data)
	if err != nil {
		return &kept{err}
	}
	r.result.PID, r.result.Timeline = server.PID, control.Timeline
	return nil
}

// kept is a failure after which the copy stays.
type kept struct{ error }

func (k *kept) Unwrap() error { return k.error }

// flush puts the copy on disk where no server does it.
func (r *restoring) flush(context.Context) error {
	for _, path := range r.layout.realPaths() {
		handle, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(handle.Fd()))
		if err = errors.Join(err, handle.Close()); err != nil {
			return fault.Wrap(err, fault.Storage, "", "flush %s", path)
		}
	}
	return nil
}

// undo removes what a failed restore made.
func (r *restoring) undo(ctx context.Context) error {
	return r.remove(context.WithoutCancel(ctx), r.copy)
}
