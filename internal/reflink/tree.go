package reflink

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// treeCopy copies what is in a directory into another, which is there and empty,
// sharing the files' blocks where the file system can.
type treeCopy struct {
	from, to string
	// changing: the source is in use, so what vanishes or becomes something else
	// is left out. In backup mode the WAL makes that whole.
	changing bool
	// skip leaves out a file, or a directory with all below it.
	skip func(relative string) bool
	// skipContent makes a directory without its content.
	skipContent func(relative string) bool
	// isControl tells which files are control files, copied after all others.
	isControl func(relative string) bool

	workers  *errgroup.Group
	controls []controlFile
	// copies is set once the file system has refused to share blocks.
	copies atomic.Bool
}

type controlFile struct {
	in   *pair
	name string
}

func none(string) bool { return false }

func (t *treeCopy) run(ctx context.Context) error {
	workersCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t.workers, workersCtx = errgroup.WithContext(workersCtx)
	t.workers.SetLimit(2 * runtime.GOMAXPROCS(0))
	err := t.root(workersCtx)
	if err != nil {
		stop(err)
	}
	if waited := t.workers.Wait(); err == nil {
		err = waited
	}
	for _, control := range t.controls {
		if err == nil {
			err = control.copy(ctx)
		}
		err = errors.Join(err, control.in.done())
	}
	return err
}

func (t *treeCopy) root(ctx context.Context) error {
	from, err := os.OpenFile(t.from, directoryFlags, 0)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(t.to, directoryFlags, 0)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	return t.directory(ctx, &pair{from: from, to: to}, ".")
}

// directory copies what is in an open directory, of which it is the first user.
func (t *treeCopy) directory(ctx context.Context, p *pair, relative string) (err error) {
	defer p.use().doneAfter(&err)
	if p.info, err = p.from.Stat(); err != nil || t.skipContent(relative) {
		return err
	}
	entries, err := p.from.ReadDir(-1)
	if err != nil && !t.vanished(err) {
		return err
	}
	for _, entry := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.entry(ctx, p, entry, filepath.Join(relative, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeCopy) entry(ctx context.Context, p *pair, entry fs.DirEntry, relative string) error {
	name := entry.Name()
	switch {
	case t.skip(relative):
	case entry.IsDir():
		below, err := p.below(name)
		if err != nil {
			return t.unlessVanished(err)
		}
		return t.directory(ctx, below, relative)
	case entry.Type()&fs.ModeSymlink != 0:
		return t.unlessVanished(p.copyLink(name))
	case entry.Type().IsRegular() && t.isControl(relative):
		t.controls = append(t.controls, controlFile{p.use(), name})
	case entry.Type().IsRegular():
		p.use()
		t.workers.Go(func() (err error) {
			defer p.doneAfter(&err)
			return t.file(ctx, p, name)
		})
	}
	return nil // sockets and the like belong to who made them
}

func (t *treeCopy) file(ctx context.Context, p *pair, name string) (err error) {
	source, info, err := p.openFile(name)
	if err != nil {
		return t.unlessVanished(err)
	}
	defer source.Close()
	target, err := openIn(p.to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := t.content(ctx, source, target, info.Size()); err != nil {
		return &fs.PathError{Op: "copy", Path: source.Name(), Err: err}
	}
	return own(target, info)
}

func (t *treeCopy) unlessVanished(err error) error {
	if t.vanished(err) {
		return nil
	}
	return err
}

func (t *treeCopy) vanished(err error) bool {
	return t.changing && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errChanged))
}
